""":in, :not-in, :above and :below find by the codes of value sets and code systems that the caller sees, with every store."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from fhir_server.search import code_sets
from tests.filled import put, served_with
from tests.served import Served

LOINC, ANIMALS = "http://loinc.org", "urn:tests:animals"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
SYSTEM = {
    "resourceType": "CodeSystem", "id": "animals", "url": ANIMALS, "status": "active", "content": "complete", "hierarchyMeaning": "is-a",
    "concept": [{"code": "dog", "concept": [{"code": "poodle"}, {"code": "beagle"}]}, {"code": "cat"}],
}  # fmt: skip


def value_set(id: str, *include: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "ValueSet", "id": id, "url": f"urn:tests:{id}", "status": "active", "compose": {"include": include}, **more}


def named(system: str, *codes: str) -> dict[str, Any]:
    return {"system": system, "concept": [{"code": code} for code in codes]}


def row(id: str, *codings: tuple[str, str], **more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": system, "code": code} for system, code in codings]}
    category = [{"coding": [{"system": CATEGORY, "code": "vital-signs"}]}]
    about = {"status": "final", "category": category, "code": code, "subject": {"reference": "Patient/adult"}}
    return {"resourceType": "Observation", "id": id, **about, **more}


SETS = (
    SYSTEM,
    value_set("pets", {"system": ANIMALS}),
    value_set("dogs", {"system": ANIMALS, "filter": [{"property": "concept", "op": "is-a", "value": "dog"}]}),
    value_set("vitals", named(LOINC, "29463-7", "8302-2")),
    value_set("both", {"valueSet": ["urn:tests:vitals"]}, {"valueSet": ["urn:tests:dogs"]}),
    value_set("statuses", named("http://hl7.org/fhir/observation-status", "amended", "corrected")),
    value_set("all-of-snomed", {"system": "http://snomed.info/sct"}),
    value_set("many", named("urn:many", *[f"c{number}" for number in range(501)])),
    value_set("most", named(ANIMALS, "cat", *[f"c{number}" for number in range(499)])),
)  # fmt: skip
ROWS = (
    row("poodle", (ANIMALS, "poodle")), row("cat", (ANIMALS, "cat")), row("weight", (LOINC, "29463-7")),
    row("both", (LOINC, "8302-2"), (ANIMALS, "beagle")), row("other", (LOINC, "8310-5")), row("elsewhere", ("urn:else", "poodle")),
    row("amended", (LOINC, "8310-5"), status="amended"),
)  # fmt: skip
ALL = {one["id"] for one in ROWS}
FOUND: tuple[tuple[str, set[str]], ...] = (
    ("code:in=urn:tests:dogs", {"poodle", "both"}),
    ("code:in=ValueSet/dogs", {"poodle", "both"}),
    ("code:in={base}/ValueSet/dogs", {"poodle", "both"}),
    ("code:in=urn:tests:dogs,urn:tests:vitals", {"poodle", "both", "weight"}),
    ("code:in=urn:tests:both", {"poodle", "both", "weight"}),
    ("code:not-in=urn:tests:dogs", ALL - {"poodle", "both"}),
    ("code:not-in=urn:tests:dogs,urn:tests:vitals", ALL - {"poodle", "both", "weight"}),
    ("combo-code:in=urn:tests:dogs", {"poodle", "both"}),
    ("status:in=urn:tests:statuses", {"amended"}),
    ("status:not-in=urn:tests:statuses", ALL - {"amended"}),
    ("code:in=urn:tests:most", {"cat"}),
    ("combo-code:not-in=urn:tests:most", ALL - {"cat"}),
    (f"code:below={ANIMALS}|dog", {"poodle", "both"}),
    (f"code:below={ANIMALS}|cat", {"cat"}),
    (f"code:above={ANIMALS}|poodle", {"poodle"}),
    (f"code:below={ANIMALS}|poodle,{ANIMALS}|cat", {"poodle", "cat"}),
    ("category:in=http://hl7.org/fhir/ValueSet/observation-category", ALL),
    ("category:in=http://hl7.org/fhir/ValueSet/observation-category|4.0.1&code:in=urn:tests:pets", {"poodle", "cat", "both"}),
    ("_filter=" + quote('code in "urn:tests:dogs" or status eq amended'), {"poodle", "both", "amended"}),
    ("_filter=code ni urn:tests:dogs", ALL - {"poodle", "both"}),
    (f"_filter=code ss {ANIMALS}|dog", {"poodle", "both"}),
    (f"_filter=code sb {ANIMALS}|beagle", {"both"}),
)
REFUSED = (
    ("code:in=urn:tests:nowhere", "not known"),
    ("code:in=ValueSet/nowhere", "not known"),
    ("code:in=urn:tests:dogs|7", "not known"),
    ("code:in=urn:tests:all-of-snomed", "not loaded"),
    ("code:not-in=urn:tests:all-of-snomed", "not loaded"),
    ("code:in=urn:tests:many", "at most 500"),
    ("code:below=http://snomed.info/sct|404684003", "not loaded"),
    (f"code:below={ANIMALS}|unicorn", "no code"),
)


served = served_with(*SETS, *ROWS)


def _adult(served: Served, scope: str = "patient/*.rs") -> str:
    return served.app_token("adult", "adult", scope)


def _found(served: Served, token: str, search: str) -> set[str]:
    answer = served.get(token, "Observation?_count=200&" + search.replace("{base}", served.settings.base).replace(" ", "%20"))
    assert answer.status == 200, answer.body
    return set(answer.ids("Observation")) & ALL


@pytest.mark.parametrize(("search", "ids"), FOUND)
def test_a_search_by_a_set_of_codes_finds_the_rows_that_have_one(served: Served, search: str, ids: set[str]) -> None:
    for token in (served.token(), _adult(served)):
        assert _found(served, token, search) == ids


def test_in_is_the_union_of_its_codes_and_not_in_the_rest(served: Served) -> None:
    token = _adult(served)
    for of in ("pets", "dogs", "vitals", "both"):
        expansion = served.get(served.token(), f"ValueSet/{of}/$expand").json["expansion"]["contains"]
        one_by_one = [_found(served, token, f"code={one['system']}|{one['code']}") for one in expansion]
        assert _found(served, token, f"code:in=urn:tests:{of}") == set().union(*one_by_one)
        assert _found(served, token, f"code:not-in=urn:tests:{of}") == ALL - set().union(*one_by_one)


@pytest.mark.parametrize(("search", "said"), REFUSED)
def test_a_set_that_cannot_be_known_is_refused(served: Served, search: str, said: str) -> None:
    for prefix in ("", "_count=0&"):
        answer = served.get(_adult(served), f"Observation?{prefix}{search}")
        assert (answer.status, said in answer.body.decode()) == (400, True), answer.body


def test_a_value_set_without_a_scope_is_as_absent(served: Served) -> None:
    answer = served.get(_adult(served, "patient/Observation.rs"), "Observation?code:in=urn:tests:dogs")
    absent = served.get(_adult(served, "patient/Observation.rs"), "Observation?code:in=urn:tests:dogx")
    assert (answer.status, answer.body) == (400, absent.body.replace(b"dogx", b"dogs"))
    shipped = "Observation?code:not-in=http://hl7.org/fhir/ValueSet/observation-category"
    assert served.get(_adult(served, "patient/Observation.rs"), shipped).status == 200


def test_chains_has_and_conditional_requests_take_sets_of_codes(served: Served) -> None:
    token = served.token()
    patients = served.get(token, "Patient?_has:Observation:subject:code:in=urn:tests:dogs").ids()
    assert patients == ["adult"]
    report = {
        "resourceType": "DiagnosticReport", "id": "of-dogs", "status": "final", "code": {"text": "x"},
        "subject": {"reference": "Patient/adult"}, "result": [{"reference": "Observation/poodle"}],
    }  # fmt: skip
    assert put(served, report) in (200, 201)
    assert served.get(token, "DiagnosticReport?result.code:in=urn:tests:dogs").ids() == ["of-dogs"]
    assert served.get(token, f"DiagnosticReport?result:Observation.code:below={ANIMALS}|cat").ids() == []
    created = served.request(
        token, "POST", "Observation", body=row("n", (ANIMALS, "cat")), headers={"if-none-exist": f"code:below={ANIMALS}|cat"}
    )
    assert created.status == 200


def test_the_hierarchies_of_r4_can_be_searched_by(served: Served) -> None:
    acts = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
    ambulatory = served.get(_adult(served), f"Encounter?class={acts}|AMB&_count=200").ids()
    below = served.get(_adult(served), f"Encounter?class:below={acts}|_ActEncounterCode&_count=200").ids()
    assert ambulatory and set(ambulatory) <= set(below)
    assert set(served.get(_adult(served), f"Encounter?class:above={acts}|AMB&_count=200").ids()) == set(ambulatory)


def test_a_change_of_a_value_set_counts_from_the_next_search_on(served: Served) -> None:
    token = served.token()
    assert put(served, value_set("changing", named(ANIMALS, "cat"))) in (200, 201)
    assert _found(served, token, "code:in=urn:tests:changing") == {"cat"}
    assert put(served, value_set("changing", named(ANIMALS, "poodle"))) == 200
    assert _found(served, token, "code:in=urn:tests:changing") == {"poodle"}
    assert served.request(token, "DELETE", "ValueSet/changing").status == 204
    assert served.get(token, "Observation?code:in=urn:tests:changing").status == 400


def test_scopes_take_no_sets_of_codes(served: Served) -> None:
    token = _adult(served, "patient/Observation.rs?code:in=urn:tests:dogs patient/ValueSet.rs")
    assert served.get(token, "Observation").status == 403


def test_bounds_count_all_sets_of_a_search_together(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_sets, "MAX_VALUES", 6)
    assert served.get(served.token(), "Observation?code:in=urn:tests:pets").status == 200
    assert served.get(served.token(), "Observation?code:in=urn:tests:pets&combo-code:in=urn:tests:pets").status == 400
