"""A read in a transaction answers what it answers alone, on every store and for every caller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.interactions.messages import Request
from fhir_server.interactions.routing import ROUTES, match_route
from tests.seeded import seeded
from tests.served import Served, store_url

CALLERS = {
    "backend": None,
    "adult": "adult",
    "proxy-standard": "adult",
    "parent-a": "teen",
    "clinician": "",
}
READS = (
    "Patient/{patient}",
    "Patient/{patient}/_history",
    "Patient/{patient}/_history/1",
    "Patient/_history?_count=3",
    "_history?_count=2&_sort=_lastUpdated",
    "Observation/_history?_at=2026&_count=2",
    "Patient/{patient}/$meta",
    "Patient/{patient}/$everything",
    "Subscription/none/$status",
    "Subscription/none/$events",
    "Subscription/$status",
    "Patient/{patient}/$everything?_count=3",
    "Patient/$everything?_count=3",
    "Encounter/adult-annual-visit/$everything",
    "Patient/{patient}/$summary",
    "Patient/{patient}/$health-cards-issue?credentialType=Immunization",
    "DocumentReference/$docref?patient={patient}",
    "Composition/none/$document",
    "Composition/$document?id=none",
    "Group/none/$everything",
    "Observation/$lastn?patient={patient}&category=laboratory",
    "Observation/$lastn?patient={patient}&category=laboratory&max=2&_count=3",
    "Patient/{patient}/Observation?code=718-7",
    "Patient/{patient}/*?_count=3",
    "Patient/{patient}/Observation/_search?_count=2",
    "?_type=Observation,Condition&_count=3",
    "_search?_type=Observation&_summary=count",
    "Observation/_search?_count=2",
    "Consent?_sort=_lastUpdated",
    "Consent?_sort=-_lastUpdated,_id&_count=1",
    "Observation?_sort=date",
    "Observation?_sort=-date,code&_count=2",
    "Observation?_sort=-code,value-quantity,_lastUpdated,_id",
    "Observation?category=laboratory&_sort=code&_include=Observation:subject",
    "Observation?_summary=count",
    "Encounter?_revinclude=Observation:encounter&_count=2",
    "MedicationRequest?_include=MedicationRequest:medication",
    "Observation?category:in=http://hl7.org/fhir/ValueSet/observation-category&_count=2",
    "ValueSet/$expand?url=http://hl7.org/fhir/ValueSet/administrative-gender",
    "CodeSystem/$lookup?system=http://hl7.org/fhir/administrative-gender&code=male",
    "ConceptMap/$translate?system=http://hl7.org/fhir/administrative-gender&code=male",
    "ValueSet/$validate-code?url=http://hl7.org/fhir/ValueSet/administrative-gender&system=http://hl7.org/fhir/administrative-gender&code=x",
    "CodeSystem/$validate-code?url=http://hl7.org/fhir/administrative-gender&code=male",
    "CodeSystem/$subsumes?system=http://hl7.org/fhir/administrative-gender&codeA=male&codeB=female",
    "ValueSet/nowhere/$expand",
    "ValueSet/nowhere/$validate-code?system=http://hl7.org/fhir/administrative-gender&code=male",
    "CodeSystem/nowhere/$validate-code?code=male",
    "CodeSystem/nowhere/$subsumes?codeA=male&codeB=female",
    "ConceptMap/nowhere/$translate?system=http://hl7.org/fhir/administrative-gender&code=male",
)


@pytest.fixture(scope="module", params=["memory:", "sqlite", "mongodb"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = seeded(store_url(request.param, tmp_path_factory.mktemp("store")), audit="batched")
    yield served
    served.close()


def token(server: Served, caller: str) -> str:
    patient = CALLERS[caller]
    if patient is None:
        return server.token()
    return server.token("demo-public", f"{'patient' if patient else 'user'}/*.cruds", caller, patient or None)


def in_transaction(server: Served, token: str, *entries: dict[str, Any]) -> Any:
    return server.request(token, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": list(entries)})


def test_every_route_that_only_reads_is_asked() -> None:
    asked = {match_route(_get(read), in_bundle=True).shape for read in READS}
    assert asked == {route.shape for route in ROUTES if route.read_handler and route.method == "GET" and not route.is_raw}


def _get(read: str) -> Request:
    path = read.format(patient="adult").partition("?")[0]
    return Request("GET", tuple(step for step in path.split("/") if step), (), {}, b"", 0)


@pytest.mark.parametrize("caller", CALLERS)
def test_reads_in_a_transaction_answer_as_they_do_alone(server: Served, caller: str) -> None:
    asked = token(server, caller)
    for read in READS:
        url = read.format(patient=CALLERS[caller] or "adult")
        alone, together = server.get(asked, url), in_transaction(server, asked, {"request": {"method": "GET", "url": url}})
        if alone.status == 200:
            assert together.status == 200, (url, together.body)
            assert together.json["entry"][0] == {"resource": alone.json} | {"response": together.json["entry"][0]["response"]}, url
        else:
            assert together.status == alone.status < 500, (url, together.body)


def test_reads_see_what_the_transaction_wrote_before_them(server: Served) -> None:
    feed, adult = server.token(), {"reference": "Patient/adult"}
    before = len(server.get(feed, "Patient/adult/$everything?_type=Flag").ids("Flag"))
    flag = {"resourceType": "Flag", "id": "seen-at-once", "status": "active", "code": {"text": "x"}, "subject": adult}
    answer = in_transaction(
        server,
        feed,
        {"request": {"method": "GET", "url": "Patient/adult/$everything?_type=Flag"}},
        {"resource": flag, "request": {"method": "PUT", "url": "Flag/seen-at-once"}},
    )
    found = [entry["resource"]["id"] for entry in answer.json["entry"][0]["resource"]["entry"]]
    assert before == 0 and "seen-at-once" in found
    assert server.request(feed, "DELETE", "Flag/seen-at-once").status == 204
