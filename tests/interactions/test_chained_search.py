"""Chained parameters and ``_has`` over HTTP: each step leads to what a search of its type shows this caller, and to nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from fhir_server.access.view import View
from tests.seeded import seeded_with
from tests.served import NOON, Served

_HELD = [{"url": "https://fhir-server.example/ig/StructureDefinition/release-at", "valueInstant": "2026-11-22T00:00:00Z"}]
_STD = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "STD"}]}
_RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"


def _result(id: str, code: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": id, "status": "final", "code": {"coding": [{"system": "urn:tests", "code": code}]},
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
        "subject": {"reference": "Patient/adult"}, **more,
    }  # fmt: skip


def _report(id: str, *results: str) -> dict[str, Any]:
    about = {"status": "final", "code": {"text": "a report"}, "subject": {"reference": "Patient/adult"}}
    return {"resourceType": "DiagnosticReport", "id": id, **about, "result": [{"reference": f"Observation/{one}"} for one in results]}


def _order(id: str, medication: str, **more: Any) -> dict[str, Any]:
    about = {"status": "active", "intent": "order", "subject": {"reference": "Patient/adult"}}
    return {
        "resourceType": "MedicationRequest",
        "id": id,
        **about,
        "medicationReference": {"reference": f"Medication/{medication}"},
        **more,
    }


ROWS = (
    {"resourceType": "Organization", "id": "north", "name": "North Clinic", "identifier": [{"system": "urn:org", "value": "n"}]},
    {"resourceType": "Practitioner", "id": "ada", "name": [{"family": "Chainwright"}]},
    {"resourceType": "Encounter", "id": "visit", "status": "finished", "class": {"code": "AMB"}, "subject": {"reference": "Patient/adult"},
     "serviceProvider": {"reference": "Organization/north"}},
    _result("open", "A", performer=[{"reference": "Practitioner/ada"}], encounter={"reference": "Encounter/visit"}),
    _result("held", "A", extension=_HELD, performer=[{"reference": "Practitioner/ada"}], encounter={"reference": "Encounter/visit"}),
    _result("secret", "S", meta=_STD, encounter={"reference": "Encounter/visit"}),
    _report("of-open", "open"), _report("of-held", "held"), _report("of-both", "open", "held"),
    {"resourceType": "Medication", "id": "cream", "code": {"coding": [{"system": _RXNORM, "code": "308182"}]},
     "batch": {"lotNumber": "LOT9"}, "identifier": [{"system": "urn:batch", "value": "9"}]},
    {"resourceType": "Medication", "id": "tonic", "code": {"coding": [{"system": _RXNORM, "code": "308182"}]},
     "identifier": [{"system": "urn:batch", "value": "8"}]},
    _order("of-cream", "cream"), _order("of-tonic", "tonic", meta=_STD),
)  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = seeded_with(ROWS)
    yield server
    server.close()


def _own(served: Served, scope: str = "patient/*.rs") -> str:
    return served.app_token("adult", "adult", scope)


FOUND: list[tuple[str, set[str]]] = [
    ("Observation?performer:Practitioner.family=chainwright", {"open", "held"}),
    ("Observation?performer.family=chainwright", {"open", "held"}),
    ("Observation?encounter.service-provider.name=north", {"open", "held", "secret"}),
    ("Observation?encounter.service-provider:Organization.identifier=urn:org|n&code=S", {"secret"}),
    ("Observation?encounter.service-provider.name:exact=North", set()),
    ("Observation?encounter._id=visit&code=A", {"open", "held"}),
    ("Observation?encounter.status:not=finished&code=A", set()),
    ("DiagnosticReport?result.code=urn:tests|A", {"of-open", "of-held", "of-both"}),
    ("DiagnosticReport?result.performer.family=chainwright", {"of-open", "of-held", "of-both"}),
    ("Organization?_has:Encounter:service-provider:_id=visit", {"north"}),
    ("Organization?_has:Encounter:service-provider:_has:Observation:encounter:code=S", {"north"}),
    ("Organization?_has:Encounter:service-provider:_has:Observation:encounter:code=none", set()),
    ("Practitioner?_has:Observation:performer:encounter.service-provider.name=north", {"ada"}),
    ("Encounter?_has:Observation:encounter:performer.family=chainwright", {"visit"}),
    ("Patient?_has:Observation:patient:code=urn:tests|S", {"adult"}),
    ("Patient?_has:MedicationRequest:patient:medication.identifier=urn:batch|8", {"adult"}),
]


@pytest.mark.parametrize(("path", "ids"), FOUND)
def test_caller_who_sees_all_finds_by_every_form_of_chain(served: Served, path: str, ids: set[str]) -> None:
    type = path.partition("?")[0]
    answer = served.get(served.token(), path + "&_total=accurate")
    assert answer.status == 200, answer.json
    assert set(answer.ids(type)) == ids and answer.json["total"] == len(ids)
    form = [(name, value) for pair in path.partition("?")[2].split("&") for name, _, value in (pair.partition("="),)]
    assert set(served.request(served.token(), "POST", f"{type}/_search", form=form).ids(type)) == ids


SEEN: list[tuple[str, set[str]]] = [
    ("DiagnosticReport?result.code=urn:tests|A", {"of-open", "of-both"}),
    ("DiagnosticReport?result.code:not=urn:tests|A&result.performer.family=chainwright", set()),
    ("DiagnosticReport?result.performer.family=chainwright", {"of-open", "of-both"}),
    ("DiagnosticReport?result._id=held", set()),
    ("Observation?_has:DiagnosticReport:result:_id=of-held", set()),
    ("Encounter?_has:Observation:encounter:_id=held", set()),
    ("Encounter?_has:Observation:encounter:_id=open", {"visit"}),
    ("Organization?_has:Encounter:service-provider:_has:Observation:encounter:_id=held", set()),
]


@pytest.mark.parametrize(("path", "ids"), SEEN)
def test_unreleased_result_is_no_step_until_its_release(served: Served, path: str, ids: set[str]) -> None:
    token, type = _own(served), path.partition("?")[0]
    answer = served.get(token, path)
    assert answer.status == 200 and set(answer.ids(type)) == ids
    never = path.replace("=held", "=never-was").replace("=of-held", "=never-was")
    if never != path:
        assert served.get(token, never).json.get("total") == answer.json.get("total") == 0
    served.at("2026-11-22T12:00:00Z")  # released by then
    later = served.get(_own(served), path).ids(type)
    served.at(NOON)
    assert ":not" in path or set(later) > ids or "=open" in path, later


def test_step_needs_a_search_scope_for_its_type(served: Served) -> None:
    narrow = _own(served, "patient/DiagnosticReport.rs patient/Observation.r")
    for path in (
        "DiagnosticReport?result.code=A",
        "DiagnosticReport?result.code=never",
        "DiagnosticReport?_has:Observation:subject:code=A",
    ):
        answer = served.get(narrow, path)
        assert answer.status == (400 if "_has" in path else 403), path
    wide = _own(served, "patient/DiagnosticReport.rs patient/Observation.rs")
    assert served.get(wide, "DiagnosticReport?result.code=A").status == 200
    # a chain without a type leads to the types that the scopes cover
    people = _own(served, "patient/Observation.rs patient/Patient.rs")
    assert served.get(people, "Observation?subject.name=zz").status == 200
    assert served.get(people, "Observation?encounter.status=finished").status == 403


def _of_narrowed_results(served: Served) -> set[str]:
    token = _own(served, "patient/DiagnosticReport.rs patient/Observation.rs?_id=secret,never-was")
    found = served.get(token, "DiagnosticReport?result.code=urn:tests|A")
    assert found.status == 200
    return set(found.ids("DiagnosticReport"))


def test_scope_s_own_condition_narrows_the_step(served: Served) -> None:
    assert _of_narrowed_results(served) == set()


def test_step_with_the_visibility_of_another_type_would_be_noticed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = View._visibility
    monkeypatch.setattr(View, "_visibility", lambda self, type, interactions: exact(self, "DiagnosticReport", interactions))
    assert _of_narrowed_results(served) != set()


def test_medication_is_a_step_only_for_those_who_see_it(served: Served) -> None:
    assert served.get(served.token(), "MedicationRequest?medication.identifier=urn:batch|9").ids() == ["of-cream"]
    assert served.get(_own(served), "MedicationRequest?medication.identifier=urn:batch|9").ids() == ["of-cream"]
    parent = served.app_token("parent-a", "teen")
    assert served.get(parent, "MedicationRequest?medication.identifier=urn:batch|9").ids() == []


def test_missing_of_a_hideable_reference_is_refused_in_a_step_too(served: Served) -> None:
    for path in ("Observation?_has:DiagnosticReport:result:result:missing=false", "DiagnosticReport?result.encounter:missing=true"):
        assert served.get(_own(served), path).status == 400, path
        assert served.get(served.token(), path).status == 200, path


def test_chain_leads_conditional_create_and_pages_and_sort(served: Served) -> None:
    feed = served.token()
    first = served.get(feed, "Observation?encounter.service-provider.name=north&_count=1&_sort=_id")
    link = next(link["url"] for link in first.json["link"] if link["relation"] == "next")
    assert first.ids() == ["held"] and served.get(feed, link).ids() == ["open"]
    body = {name: value for name, value in ROWS[3].items() if name != "id"}
    once = served.request(
        feed, "POST", "Observation", body=body, headers={"If-None-Exist": "encounter.service-provider.name=north&_id=open"}
    )
    assert once.status == 200


def test_filter_expression_leads_to_what_the_caller_sees(served: Served) -> None:
    path = "DiagnosticReport?_filter=" + quote("result.code eq urn:tests|A and (status eq final or status eq amended)")
    assert set(served.get(served.token(), path).ids()) == {"of-open", "of-held", "of-both"}
    assert set(served.get(_own(served), path).ids()) == {"of-open", "of-both"}
    assert served.get(_own(served, "patient/DiagnosticReport.rs"), path).status == 403
    assert served.get(_own(served), "DiagnosticReport?_filter=" + quote("result pr true")).status == 400


def test_list_shows_what_its_visible_entries_name(served: Served) -> None:
    entries = [{"item": {"reference": f"Observation/{id}"}} for id in ("open", "held")] + [{"item": {"reference": "Encounter/visit"}}]
    about = {"status": "current", "mode": "working", "subject": {"reference": "Patient/adult"}, "entry": entries}
    feed = served.token()
    assert served.request(feed, "PUT", "List/mine", body={"resourceType": "List", "id": "mine", **about}).status == 201
    assert set(served.get(feed, "Observation?_list=mine").ids()) == {"open", "held"}
    assert served.get(feed, "Encounter?_list=mine").ids() == ["visit"]
    assert served.get(feed, "Observation?_list=never-was").ids() == []
    own = _own(served)
    expected = {"open"} if served.get(own, "List/mine").status == 200 else set()
    assert set(served.get(own, "Observation?_list=mine").ids()) == expected
    assert served.get(_own(served, "patient/Observation.rs"), "Observation?_list=mine").status == 403
    assert served.request(feed, "DELETE", "List/mine").status == 204
    assert served.get(feed, "Observation?_list=mine").ids() == []


def test_conditional_reference_by_a_chain_is_resolved_by_load_and_transaction(served: Served) -> None:
    feed = served.token()
    row = _result("linked", "L", encounter={"reference": "Encounter?service-provider.identifier=urn:org|n"})
    entry = {"resource": row, "request": {"method": "PUT", "url": "Observation/linked"}}
    answer = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert answer.status == 200, answer.json
    assert served.get(feed, "Observation/linked").json["encounter"] == {"reference": "Encounter/visit"}
    assert served.request(feed, "DELETE", "Observation/linked").status == 204
