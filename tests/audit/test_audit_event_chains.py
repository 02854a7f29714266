"""Chained parameters and ``_has`` of AuditEvents: lines of the audit log are found by the resources that they name and the caller sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fhir_server.access.view import View
from fhir_server.search import looked_up_steps
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.visibility import Visibility
from tests.seeded import seeded
from tests.served import Served, store_url

HELD = [{"url": "https://fhir-server.example/ig/StructureDefinition/release-at", "valueInstant": "2030-01-01T00:00:00Z"}]


def _result(id: str, code: str, **more: object) -> dict[str, object]:
    category = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}
    about = {"status": "final", "category": [category], "code": {"coding": [{"system": "urn:tests", "code": code}]}, **more}
    return {"resourceType": "Observation", "id": id, "subject": {"reference": "Patient/adult"}, **about}


@pytest.fixture(scope="module", params=["memory", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")))
    feed = server.token()
    for row in (_result("told", "A"), _result("held", "A", extension=HELD), _result("other", "B")):
        assert server.request(feed, "PUT", f"Observation/{row['id']}", body=row).status == 201
    clinician, own = server.token("demo-public", "user/*.rs", "clinician"), server.app_token("adult", "adult")
    for token, ids in ((clinician, ("told", "held")), (own, ("told", "other"))):
        for id in ids:
            assert server.get(token, f"Observation/{id}").status == 200
    assert server.get(server.app_token("parent-a", "child"), "Patient/child").status == 200
    yield server
    server.close()


def _officer(served: Served) -> str:
    return served.token("demo-public", "user/*.rs", "privacy-officer")


def _reads(served: Served, token: str, query: str) -> set[str]:
    """Who read what, by the lines that are found: the reader, and the first resource that the line names."""
    answer = served.get(token, f"AuditEvent?{query}&action=R&_count=200")
    assert answer.status == 200, answer.json
    found = [entry["resource"] for entry in answer.json.get("entry", ())]
    return {f"{one['agent'][0].get('who', {}).get('reference')} {one['entity'][0]['what']['reference']}" for one in found}


RIVERA, OWN, PARENT = "Practitioner/dr-rivera", "Patient/adult", "RelatedPerson/parent-a-of-child"
OF_RIVERA = {f"{RIVERA} Observation/told", f"{RIVERA} Observation/held"}
FOUND: list[tuple[str, str, set[str]]] = [
    ("officer", "agent:Practitioner.family=rivera", OF_RIVERA),
    ("officer", "agent.family=rivera", OF_RIVERA),
    ("officer", "agent:Practitioner.family=nobody", set()),
    ("officer", "agent:RelatedPerson.patient=child", {f"{PARENT} Patient/child"}),
    ("officer", "agent:RelatedPerson.patient.gender=unknown", set()),
    ("officer", "patient._id=child", {f"{PARENT} Patient/child"}),
    ("officer", "patient:Patient.identifier=urn:none|1", set()),
    ("own", "entity:Observation.code=urn:tests|A", {f"{OWN} Observation/told"}),
    ("own", "entity:Observation.code=urn:tests|B", {f"{OWN} Observation/other"}),
    ("own", "entity:Observation.code=urn:tests|none", set()),
    ("own", "entity:Observation.code=urn:tests|A&agent:Practitioner.family=rivera", set()),
    ("own", "entity:Observation.subject:Patient._id=adult", {f"{OWN} Observation/told", f"{OWN} Observation/other"}),
    ("own", "entity:Observation.subject:Patient._id=child", set()),
    ("own", "entity:Observation._has:Provenance:target:_id=never-was", set()),
    ("own", "_filter=agent.family%20eq%20rivera", {f"{RIVERA} Patient/adult"}),
]


@pytest.mark.parametrize(("who", "query", "reads"), FOUND)
def test_lines_are_found_through_the_resources_that_they_name(served: Served, who: str, query: str, reads: set[str]) -> None:
    token = _officer(served) if who == "officer" else served.app_token("adult", "adult")
    assert _reads(served, token, query) == reads
    assert _reads(served, token, query + "&_sort=date") == reads
    counted = served.get(token, f"AuditEvent?{query}&action=R&_summary=count").json["total"]
    assert (counted > 0) == bool(reads)


def test_no_line_is_found_through_a_resource_that_is_hidden(served: Served) -> None:
    feed, own = served.token(), served.app_token("adult", "adult")
    for body in (_result("passing", "P"), _result("passing", "P", extension=HELD)):
        assert served.request(feed, "PUT", "Observation/passing", body=body).status in (200, 201)
        if "extension" not in body:
            assert served.get(own, "Observation/passing").status == 200
            assert _reads(served, own, "entity:Observation._id=passing") == {f"{OWN} Observation/passing"}
    for query in ("entity:Observation._id=passing", "entity:Observation.code=urn:tests|P", "entity:Observation._id=held"):
        never = served.get(own, f"AuditEvent?{query.partition('=')[0]}=never-was&_summary=count")
        answer = served.get(own, f"AuditEvent?{query}&_summary=count")
        assert answer.status == never.status == 200 and answer.json["total"] == never.json["total"] == 0, query
        assert _reads(served, _officer(served), query) == set()  # who sees no results


def test_step_needs_a_search_scope_for_its_type(served: Served) -> None:
    narrow = served.app_token("adult", "adult", "patient/AuditEvent.rs")
    for query in ("entity:Observation.code=urn:tests|A", "agent.family=rivera", "agent.family=never"):
        assert served.get(narrow, f"AuditEvent?{query}").status == 403, query
    some = served.app_token("adult", "adult", "patient/AuditEvent.rs patient/Practitioner.rs patient/Observation.rs")
    assert _reads(served, some, "agent.family=rivera") == {f"{RIVERA} Patient/adult"}


def test_step_that_forgets_the_view_would_be_noticed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = served.app_token("adult", "adult", "patient/AuditEvent.rs patient/Observation.rs patient/Practitioner.rs?_id=never-was")
    query = "agent:Practitioner.family=rivera"
    assert _reads(served, token, query) == set()
    exact = View._visibility

    def of_no_scope(self: View, type: str, interactions: str) -> Visibility:
        found = exact(self, type, interactions)
        return replace(found, clauses=tuple([replace(clause, where=EVERYTHING) for clause in found.clauses]))

    monkeypatch.setattr(View, "_visibility", of_no_scope)
    assert _reads(served, token, query) != set()


def test_step_to_too_many_rows_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looked_up_steps, "MAX_STEP_ROWS", 1)
    own = served.app_token("adult", "adult")
    refused = served.get(own, "AuditEvent?entity:Observation.code=urn:tests|A,urn:tests|B")
    assert refused.status == 400 and "more than 1 resources of type Observation" in refused.json["issue"][0]["diagnostics"]
    assert served.get(own, "AuditEvent?entity:Observation.code=urn:tests|A").status == 200  # of two, one is hidden


def test_no_step_leads_to_lines_of_the_log(served: Served) -> None:
    for path in ("Patient?_has:AuditEvent:patient:type=rest", "Provenance?target:AuditEvent.type=rest"):
        refused = served.get(_officer(served), path)
        assert refused.status == 400 and "read line by line" in refused.json["issue"][0]["diagnostics"]
