"""A row that is common to all patients is seen when it is known ordinary, or through a visible row that names it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from tests.seeded import seeded
from tests.served import Served

RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
MINOR = {"system": "http://example.org", "code": "x"}
AMOXICILLIN = {"coding": [{"system": RXNORM, "code": "308182"}]}
LOCAL = {"coding": [{"system": "http://example.org/drugs", "code": "D-77"}], "text": "compound cream"}


def _prescription(id: str, medication: str, *security: dict[str, str], patient: str = "teen") -> dict[str, Any]:
    meta = {"meta": {"security": list(security)}} if security else {}
    return {
        "resourceType": "MedicationRequest",
        "id": id,
        "status": "active",
        "intent": "order",
        "medicationReference": {"reference": f"Medication/{medication}"},
        "subject": {"reference": f"Patient/{patient}"},
    } | meta


def _medication(id: str, code: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "Medication", "id": id, "code": code} | more


RESTRICTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "STD"}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = seeded()
    feed = server.token()
    rows = [
        _medication("ordinary", AMOXICILLIN),
        _medication("private", AMOXICILLIN, text={"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">T.</div>'}),
        _medication("shown", AMOXICILLIN, identifier=[{"system": "urn:batch", "value": "1"}]),
        _medication("unnamed", AMOXICILLIN, batch={"lotNumber": "9"}),
        _prescription("hidden-order", "private", RESTRICTED),
        _prescription("shown-order", "shown"),
    ]
    for row in rows:
        answer = server.request(feed, "PUT", f"{row['resourceType']}/{row['id']}", body=row)
        assert answer.status == 201, answer.json
    yield server
    server.close()


def _ids(served: Served, token: str, path: str) -> set[str]:
    answer = served.get(token, path)
    assert answer.status == 200, answer.json
    return {entry["resource"]["id"] for entry in answer.json.get("entry", ())}


MADE = {"ordinary", "private", "shown", "unnamed"}


def test_parent_sees_ordinary_rows_and_those_of_visible_prescriptions(served: Served) -> None:
    parent = served.app_token("parent-a", "teen")
    assert served.get(parent, "MedicationRequest/hidden-order").status == 404
    assert served.get(parent, "MedicationRequest/shown-order").status == 200
    seen = {id for id in MADE if served.get(parent, f"Medication/{id}").status == 200}
    assert seen == {"ordinary", "shown"}
    assert _ids(served, parent, "Medication?_count=100") & MADE == seen
    assert _ids(served, parent, f"Medication?_id={','.join(sorted(MADE))}") == seen
    assert _ids(served, parent, "MedicationRequest?_id=shown-order&_include=MedicationRequest:medication") == {"shown-order", "shown"}


def test_hidden_row_is_absent_from_count_history_and_search_by_reference(served: Served) -> None:
    parent = served.app_token("parent-a", "teen")
    total = served.get(parent, f"Medication?_id={','.join(sorted(MADE))}&_summary=count").json["total"]
    assert total == 2
    assert served.get(parent, "Medication/private/_history").status == 404
    assert served.get(parent, "Medication/private/_history/1").status == 404
    assert served.get(parent, "Medication/shown/_history").json["total"] == 1
    assert _ids(served, parent, "MedicationRequest?medication=Medication/shown") == {"shown-order"}
    assert _ids(served, parent, "MedicationRequest?medication=Medication/private") == set()


def test_answer_for_hidden_row_is_answer_for_absent_row(served: Served) -> None:
    parent = served.app_token("parent-a", "teen")
    hidden, absent = served.get(parent, "Medication/private"), served.get(parent, "Medication/nowhere")
    assert hidden.status == absent.status == 404
    assert hidden.body.replace(b"private", b"nowhere") == absent.body


def test_system_without_clearance_sees_rows_of_visible_prescriptions(served: Served) -> None:
    limited = Client("limited", "Limited feed", "backend", "private_key_jwt", "system/*.cruds", jwks={"keys": []})
    served.run(clients.save(served.parts.store, limited))
    system, feed = served.token("limited"), served.token()
    assert {id for id in MADE if served.get(feed, f"Medication/{id}").status == 200} == MADE
    assert served.get(system, "MedicationRequest/hidden-order").status == 404
    assert {id for id in MADE if served.get(system, f"Medication/{id}").status == 200} == {"ordinary", "shown"}
    assert _ids(served, system, "Medication?_count=100") & MADE == {"ordinary", "shown"}


def test_other_patients_prescription_shows_nothing(served: Served) -> None:
    other = served.app_token("parent-a", "child")
    seen = {id for id in MADE if served.get(other, f"Medication/{id}").status == 200}
    assert seen == {"ordinary"}


def test_hidden_prescription_changes_no_answer(served: Served) -> None:
    parent, feed = served.app_token("parent-a", "teen"), served.token()
    paths = ("Medication?_count=100", "Medication/unnamed", "Medication/shown", "Medication/shown/_history")
    before = [served.get(parent, path).body for path in paths]
    row = _prescription("later", "unnamed", RESTRICTED)
    assert served.request(feed, "PUT", "MedicationRequest/later", body=row).status == 201
    assert [served.get(parent, path).body for path in paths] == before
    assert served.request(feed, "PUT", "MedicationRequest/later", body=_prescription("later", "unnamed", MINOR)).status == 200
    assert served.request(feed, "DELETE", "MedicationRequest/later").status == 204
    assert [served.get(parent, path).body for path in paths] == before


def test_reference_to_hidden_common_row_is_cut(served: Served) -> None:
    parent, feed = served.app_token("parent-a", "teen"), served.token()
    row = {name: value for name, value in served.get(feed, "Observation/teen-hemoglobin").json.items() if name != "meta"}
    row |= {"id": "about", "focus": [{"reference": "Medication/private"}, {"reference": "Medication/shown"}]}
    assert served.request(feed, "PUT", "Observation/about", body=row).status == 201
    assert served.get(parent, "Observation/about").json["focus"] == [{"reference": "Medication/shown"}]
    assert len(served.get(feed, "Observation/about").json["focus"]) == 2
