"""Resources inside others meet the profiles that they claim: contained ones, a Bundle's entries, resources in Parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fhir_server import budget
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.budget import Budget, BudgetLimits
from fhir_server.errors import Problem
from fhir_server.packages.inner_resources import PlacedResource, with_inner
from fhir_server.packages.loading import Packages
from fhir_server.resources.validation_run import MAX_ISSUES, expression
from fhir_server.search.visibility import Visibility
from tests.profiles.cases import CASES
from tests.profiles.profile_set import BASE, Json, concept, observation, package, patient, rules, structure
from tests.profiles.test_writes import BAD, DEFECT, GOOD, SUBJECT, UNKNOWN, bundle, refusal, with_profiles
from tests.seeded import seeded
from tests.served import Answer, Served, store_url

CASE = CASES["pattern"]


def without_subject(resource: Json, **more: Any) -> Json:
    return {name: value for name, value in {**resource, **more}.items() if name != "subject"}


def containing(inner: Json) -> Json:
    report = {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "x"}, **SUBJECT}
    return {**report, "contained": [without_subject(inner, id="inner")], "result": [{"reference": "#inner"}]}


def collection(inner: Json) -> Json:
    entries = [{"fullUrl": f"http://other.example/fhir/Observation/{number}", "resource": one} for number, one in enumerate((GOOD, inner))]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def collected(outer: Callable[[Json], Json]) -> Callable[[Json], Json]:
    return lambda inner: {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": outer(inner)}]}


def parameters(inner: Json) -> Json:
    return {"resourceType": "Parameters", "parameter": [{"name": "a", "part": [{"name": "b", "resource": without_subject(inner)}]}]}


def document(inner: Json) -> Json:
    first: Json = {"resourceType": "Composition", "status": "final", "type": {"text": "x"}, "date": "2026", "title": "x", **SUBJECT}
    first |= {"author": [{"display": "x"}], "section": [{"title": "x", "entry": [{"reference": "Observation/1"}]}]}
    base = "http://other.example/fhir"
    entries = [(f"{base}/Composition/1", first), (f"{base}/Observation/1", inner), (f"{base}/Patient/adult", patient())]
    made = [{"fullUrl": url, "resource": resource} for url, resource in entries]
    about: Json = {"identifier": {"system": "urn:x", "value": "1"}, "timestamp": "2026-01-01T00:00:00Z"}
    return {"resourceType": "Bundle", "type": "document", **about, "entry": made}


PLACES = {
    "contained": (containing, "DiagnosticReport.contained[0].code"),
    "entry": (collection, "Bundle.entry[1].resource.code"),
    "document": (document, "Bundle.entry[1].resource.code"),
    "contained in an entry": (collected(containing), "Bundle.entry[0].resource.contained[0].code"),
    "Bundle in an entry": (collected(collection), "Bundle.entry[0].resource.entry[1].resource.code"),
    "Parameters in an entry": (collected(parameters), "Bundle.entry[0].resource.parameter[0].part[0].resource.code"),
}


@pytest.fixture(scope="module", params=("memory", "sqlite", "mongodb"))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = with_profiles(store_url(request.param, tmp_path_factory.mktemp("store")))
    yield made
    made.close()


def posted(served: Served, resource: Json, more: str = "") -> Answer:
    return served.request(served.token(), "POST", resource["resourceType"] + more, body=resource)


def said(answer: Answer) -> list[tuple[str, str, list[str]]]:
    assert answer.status == 200, answer.body
    return [(issue["severity"], issue["code"], issue.get("expression", [])) for issue in answer.json["issue"]]


FINE: list[tuple[str, str, list[str]]] = [("information", "informational", [])]


@pytest.mark.parametrize("name", PLACES)
def test_inner_resource_meets_what_it_claims_wherever_it_is(served: Served, name: str) -> None:
    outer, place = PLACES[name]
    assert refusal(posted(served, outer(BAD))) == (422, [(DEFECT.code, place)])
    assert said(posted(served, outer(BAD), "/$validate")) == [("error", DEFECT.code, [place])]
    assert said(posted(served, outer(GOOD), "/$validate")) == FINE
    assert posted(served, outer(GOOD)).status == 201
    unclaimed = {name: value for name, value in BAD.items() if name != "meta"}
    assert posted(served, outer(unclaimed)).status == 201


def test_every_write_demands_it(served: Served) -> None:
    token, answer = served.token(), posted(served, containing(GOOD))
    path, (_, place) = f"DiagnosticReport/{answer.json['id']}", PLACES["contained"]
    refused = (422, [(DEFECT.code, place)])
    assert refusal(served.request(token, "PUT", path, body={**containing(BAD), "id": answer.json["id"]})) == refused
    patch = [{"op": "replace", "path": "/contained/0/code", "value": BAD["code"]}]
    assert refusal(served.request(token, "PATCH", path, body=patch, headers={"content-type": "application/json-patch+json"})) == refused
    entry = ("POST", "DiagnosticReport", containing(BAD))
    assert served.request(token, "POST", "", body=bundle("transaction", entry)).status == 422
    assert served.request(token, "POST", "", body=bundle("batch", entry)).json["entry"][0]["response"]["status"][:3] == "422"
    assert served.get(token, path).json["meta"]["versionId"] == "1"


def test_unknown_inner_claim_is_named_with_its_place(served: Served) -> None:
    place = "Bundle.entry[1].resource.meta.profile"
    assert said(posted(served, collection(UNKNOWN), "/$validate"))[0] == ("warning", "not-supported", [place])
    assert posted(served, collection(UNKNOWN)).status == 201
    strict = with_profiles("memory:", unknown_profiles="refuse")
    try:
        assert refusal(posted(strict, collection(UNKNOWN))) == (422, [("not-supported", place)])
        assert posted(strict, collection(GOOD)).status == 201
    finally:
        strict.close()


def test_claim_of_another_type_is_named_with_its_place(served: Served) -> None:
    wrong = without_subject({**GOOD, "meta": {"profile": [CASES["cardinality"].url]}})
    assert refusal(posted(served, collection(wrong))) == (422, [("value", "Bundle.entry[1].resource.meta.profile")])


def test_required_profiles_of_a_type_are_those_of_rows() -> None:
    """The institution says what it stores as rows; what a document of somebody else's holds follows from its claims."""
    made = with_profiles("memory:", required_profiles=f"Observation={CASE.url}")
    unclaimed = {name: value for name, value in BAD.items() if name != "meta"}
    try:
        assert posted(made, unclaimed).status == 422
        assert posted(made, collection(unclaimed)).status == 201
        assert posted(made, collection(BAD)).status == 422
    finally:
        made.close()


def test_claims_of_one_resource_are_limited(served: Served) -> None:
    many = without_subject({**GOOD, "meta": {"profile": [f"http://x.example/{number}" for number in range(21)]}})
    answer = posted(served, collection(many))
    assert refusal(answer) == (422, [("processing", "Bundle.entry[1].resource.meta.profile")])
    assert said(posted(served, collection(many), "/$validate"))[0][0] == "error"


def test_number_of_issues_is_limited_and_warnings_hide_no_error() -> None:
    made = with_profiles("memory:", seeds=False, unknown_profiles="store")
    unknown, bad = without_subject(UNKNOWN), without_subject(BAD)
    try:
        many: Json = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": unknown} for _ in range(60)]}
        both = {**many, "entry": [*many["entry"], *({"resource": bad} for _ in range(60))]}
        assert len(said(posted(made, many, "/$validate"))) == MAX_ISSUES + 1, "and that there are no errors"
        assert {severity for severity, _, _ in said(posted(made, both, "/$validate"))} == {"error"}
        assert len(posted(made, both).json["issue"]) == MAX_ISSUES
    finally:
        made.close()


def test_checks_of_many_entries_spend_the_budget_of_the_request(served: Served) -> None:
    many = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": without_subject(GOOD)} for _ in range(300)]}
    profiles = served.parts.service.profiles

    async def check(limits: BudgetLimits) -> None:
        async def all_of_it() -> None:
            await profiles.require("Bundle", many)

        await budget.metered(all_of_it(), Budget(limits))

    served.run(check(BudgetLimits()))
    with pytest.raises(Problem) as raised:
        served.run(check(BudgetLimits(seconds=0.0001)))
    assert raised.value.kind == "too_costly"


def test_root_of_a_contained_resource_is_its_container() -> None:
    """In an invariant %rootResource is the container, and for an entry of a Bundle the entry's resource."""
    profile = structure("rooted", "Observation", {"id": "Observation", "constraint": rules("x-1", "%rootResource.status = 'final'")})
    made = Served(seeds=False)
    parts = made.parts
    made.run(Packages(parts.store, parts.labeler, made.settings.base, parts.clock).add(package(profile)))
    inner = observation(status="amended", meta={"profile": [f"{BASE}/StructureDefinition/rooted"]})
    try:
        report = {name: value for name, value in containing(inner).items() if name != "subject"}
        assert said(posted(made, report, "/$validate")) == FINE
        assert said(posted(made, collection(inner), "/$validate"))[0][:2] == ("error", "invariant")
    finally:
        made.close()


def test_places_are_in_the_order_of_the_resource() -> None:
    answered = {"resource": patient(), "response": {"status": "200", "outcome": {"resourceType": "OperationOutcome"}}}
    value = {"resourceType": "Bundle", "entry": [{}, answered, {"resource": containing(GOOD)}]}
    assert [(one.type, expression(one.place)) for one in with_inner(value)] == [
        ("Bundle", "Bundle"),
        ("Patient", "Bundle.entry[1].resource"),
        ("OperationOutcome", "Bundle.entry[1].response.outcome"),
        ("DiagnosticReport", "Bundle.entry[2].resource"),
        ("Observation", "Bundle.entry[2].resource.contained[0]"),
    ]
    assert PlacedResource({"meta": {"profile": [None, "x"]}}, (None, "Patient", -1)).claims == ("x",)


def test_verdict_says_nothing_of_a_contained_resource_that_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teenager's report contains an HIV test that breaks its claim: for a parent it is not there, for the institution it is."""
    made = seeded()
    parts = made.parts
    hidden = without_subject({**BAD, "id": "inner", "code": concept("75622-1")})
    path, token = "DiagnosticReport/teen-metabolic-panel", made.token()
    try:
        report = made.get(token, path).json
        report |= {"contained": [hidden], "result": [*report["result"], {"reference": "#inner"}]}
        assert made.request(token, "PUT", path, body=report).status == 200
        made.run(Packages(parts.store, parts.labeler, made.settings.base, parts.clock).add(package(CASE.profile)))
        asked = {"resourceType": "Parameters", "parameter": [{"name": "mode", "valueCode": "profile"}]}
        parent = made.app_token("parent-a", "teen")

        def verdict(token: str) -> list[tuple[str, str, list[str]]]:
            return said(made.request(token, "POST", f"{path}/$validate", body=asked))

        assert made.get(parent, path).status == 200 and "contained" not in made.get(parent, path).json
        assert verdict(token) == [("error", DEFECT.code, [PLACES["contained"][1]])]
        assert verdict(parent) == FINE

        async def as_stored(view: View, type: str, id: str) -> Any:
            row = await view._snapshot.newest(type, id, Visibility.unrestricted(len(await view._snapshot.classes())))
            return VisibleVersion(type, id, 1, 0, row.body if row else b"")

        monkeypatch.setattr(View, "read", as_stored)
        assert verdict(parent) != FINE, "a planted leak is noticed"
    finally:
        made.close()
