"""A value set has the codes that its rules say, all of them or one by one; what cannot be known is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhir_server import budget
from fhir_server.errors import Problem
from fhir_server.terminology import expansion
from fhir_server.terminology.expansion import Expander, SystemVersions
from fhir_server.terminology.sources import Terminology
from tests.terminology.fixed_source import Fixed, code_system, concept, expanded, value_set

ANIMALS = "urn:animals"
SYSTEM = code_system(
    ANIMALS,
    concept("animal", concept("dog", concept("poodle"), concept("beagle")), concept("cat", property=[{"code": "legs", "valueInteger": 4}])),
    concept("plant", property=[{"code": "status", "valueCode": "retired"}, {"code": "kin", "valueCode": "cat"}]),
    concept("old-dog", property=[{"code": "parent", "valueCode": "dog"}, {"code": "inactive", "valueBoolean": True}]),
    property=[
        {"code": "legs", "type": "integer"},
        {"code": "kin", "type": "code"},
        {"code": "status", "uri": "http://hl7.org/fhir/concept-properties#status", "type": "code"},
        {"code": "parent", "uri": "http://hl7.org/fhir/concept-properties#parent", "type": "code"},
        {"code": "inactive", "uri": "http://hl7.org/fhir/concept-properties#inactive", "type": "boolean"},
    ],
    version="2",
)
ALL = ["animal", "dog", "poodle", "beagle", "cat", "plant", "old-dog"]


def _filtered(*filters: tuple[str, str, str]) -> dict[str, Any]:
    return {"system": ANIMALS, "filter": [{"property": property, "op": op, "value": value} for property, op, value in filters]}


FILTERS: tuple[tuple[tuple[str, str, str], list[str]], ...] = (
    (("concept", "is-a", "dog"), ["dog", "poodle", "beagle", "old-dog"]),
    (("concept", "descendent-of", "dog"), ["poodle", "beagle", "old-dog"]),
    (("concept", "is-not-a", "dog"), ["animal", "cat", "plant"]),
    (("concept", "generalizes", "poodle"), ["animal", "dog", "poodle"]),
    (("concept", "in", "dog, cat,none"), ["dog", "cat"]),
    (("code", "not-in", "dog,cat"), ["animal", "poodle", "beagle", "plant", "old-dog"]),
    (("code", "regex", ".*og|b.*"), ["dog", "beagle", "old-dog"]),
    (("display", "regex", "The c.*"), ["cat"]),
    (("display", "=", "The cat"), ["cat"]),
    (("legs", "=", "4"), ["cat"]),
    (("legs", "exists", "true"), ["cat"]),
    (("legs", "exists", "false"), [code for code in ALL if code != "cat"]),
    (("parent", "=", "dog"), ["poodle", "beagle", "old-dog"]),
    (("child", "=", "beagle"), ["dog"]),
    (("kin", "is-a", "animal"), ["plant"]),
    (("inactive", "=", "true"), ["plant", "old-dog"]),
)


@pytest.mark.parametrize(("filter", "codes"), FILTERS)
def test_each_filter_operator_selects_its_codes(filter: tuple[str, str, str], codes: list[str]) -> None:
    assert expanded(value_set("urn:v", _filtered(filter)), SYSTEM) == codes


def test_several_filters_must_all_hold() -> None:
    assert expanded(value_set("urn:v", _filtered(("concept", "is-a", "dog"), ("code", "regex", "b.*"))), SYSTEM) == ["beagle"]


@pytest.mark.parametrize(
    "filter",
    [
        ("concept", "is-a", "unicorn"),
        ("colour", "=", "red"),
        ("code", "regex", "(a"),
        ("code", "like", "a"),
        ("legs", "exists", "perhaps"),
    ],
)
def test_a_filter_that_cannot_be_followed_is_refused(filter: tuple[str, str, str]) -> None:
    with pytest.raises(Problem) as refused:
        expanded(value_set("urn:v", _filtered(filter)), SYSTEM)
    assert refused.value.kind == "unprocessable"


COMPOSED: tuple[tuple[dict[str, Any], list[str]], ...] = (
    (value_set("urn:v", {"system": ANIMALS}), ALL),
    (value_set("urn:v", {"system": ANIMALS}, inactive=False), ALL[:-2]),
    (value_set("urn:v", {"system": ANIMALS, "concept": [{"code": "cat"}, {"code": "not-defined"}]}), ["cat", "not-defined"]),
    (value_set("urn:v", {"system": "urn:elsewhere", "concept": [{"code": "x"}]}), ["x"]),
    (value_set("urn:v", {"system": ANIMALS}, exclude=[_filtered(("concept", "is-a", "dog"))]), ["animal", "cat", "plant"]),
    (value_set("urn:v", {"valueSet": ["urn:dogs"]}), ["dog", "poodle", "beagle", "old-dog"]),
    (value_set("urn:v", {"valueSet": ["urn:dogs", "urn:short"]}), ["dog"]),
    (value_set("urn:v", {"system": ANIMALS, "valueSet": ["urn:short"]}), ["dog", "cat"]),
    (value_set("urn:v", {"valueSet": ["urn:short"]}, {"valueSet": ["urn:short|1"]}), ["dog", "cat"]),
    (value_set("urn:v", {"valueSet": ["urn:dogs"]}, exclude=[{"valueSet": ["urn:short"]}]), ["poodle", "beagle", "old-dog"]),
    (value_set("urn:v", {"system": ANIMALS, "version": "2", "concept": [{"code": "dog"}]}), ["dog"]),
)  # fmt: skip
IMPORTED = (
    value_set("urn:dogs", _filtered(("concept", "is-a", "dog"))),
    value_set("urn:short", {"system": ANIMALS, "concept": [{"code": "dog"}, {"code": "cat"}]}) | {"version": "1"},
)


@pytest.mark.parametrize(("composed", "codes"), COMPOSED)
def test_includes_are_united_and_excludes_taken_off(composed: dict[str, Any], codes: list[str]) -> None:
    assert expanded(composed, SYSTEM, *IMPORTED) == codes


LOOP = (value_set("urn:a", {"valueSet": ["urn:b"]}), value_set("urn:b", {"valueSet": ["urn:a"]}))
REFUSED = (
    (value_set("urn:v", {"system": "http://snomed.info/sct"}), "not-supported"),
    (value_set("urn:v", {"system": ANIMALS, "version": "1"}), "not-supported"),
    (value_set("urn:v", {"system": "urn:part"}), "not-supported"),
    (value_set("urn:v", {"system": ANIMALS}, exclude=[{"system": "urn:elsewhere"}]), "not-supported"),
    (value_set("urn:v", {"valueSet": ["urn:a"]}), "invalid"),
    (value_set("urn:v", {"valueSet": ["urn:nowhere"]}), "not-found"),
    ({"resourceType": "ValueSet", "url": "urn:v", "status": "active"}, "invalid"),
)


@pytest.mark.parametrize(("composed", "code"), REFUSED)
def test_what_cannot_be_known_is_refused_and_never_empty(composed: dict[str, Any], code: str) -> None:
    part = code_system("urn:part", concept("a")) | {"content": "fragment"}
    with pytest.raises(Problem) as refused:
        expanded(composed, SYSTEM, part, *LOOP)
    assert [issue.code for issue in refused.value.issues] == [code]


def test_too_many_codes_are_too_costly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion, "MAX_CODES", 6)
    with pytest.raises(Problem) as refused:
        expanded(value_set("urn:v", {"system": ANIMALS}), SYSTEM)
    assert [issue.code for issue in refused.value.issues] == ["too-costly"]


def _own(**more: Any) -> dict[str, Any]:
    contains = [{"abstract": True, "display": "Group", "contains": [{"system": "urn:e", "code": "a"}]}, {"system": "urn:e", "code": "b"}]
    found = value_set("urn:v", {"system": "urn:e"})
    return found | {"expansion": {"timestamp": "2026-01-01", "contains": contains, **more}}


def test_a_value_set_s_own_expansion_stands_in_for_a_code_system_that_is_not_loaded() -> None:
    assert expanded(_own()) == ["a", "b"]
    assert expanded(_own(), code_system("urn:e", concept("c"))) == ["c"]


@pytest.mark.parametrize(
    "more", [{"total": 9}, {"offset": 5}, {"parameter": [{"name": "filter", "valueString": "a"}]}, {"extension": [{"url": "urn:unclosed"}]}]
)
def test_an_expansion_that_is_not_whole_does_not(more: dict[str, Any]) -> None:
    with pytest.raises(Problem):
        expanded(_own(**more))


def test_a_request_may_choose_the_version_of_a_code_system() -> None:
    old = code_system(ANIMALS, concept("mouse"), version="1")
    everything = value_set("urn:v", {"system": ANIMALS})
    assert expanded(everything, old, SYSTEM) == ALL
    assert expanded(everything, old, SYSTEM, versions=SystemVersions(default={ANIMALS: "1"})) == ["mouse"]
    fixed = value_set("urn:v", {"system": ANIMALS, "version": "2"})
    assert expanded(fixed, old, SYSTEM, versions=SystemVersions(default={ANIMALS: "1"})) == ALL
    assert expanded(fixed, old, SYSTEM, versions=SystemVersions(forced={ANIMALS: "1"})) == ["mouse"]
    with pytest.raises(Problem):
        expanded(everything, old, SYSTEM, versions=SystemVersions(checked={ANIMALS: "1"}))


def test_an_expansion_of_thousands_lets_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SLICE", 0)
    large = code_system("urn:large", *[concept(f"c{number}") for number in range(5000)])
    turns = 0

    async def next_turn() -> None:
        nonlocal turns
        turns += 1

    expander = Expander(Terminology([Fixed(large)]))
    work = expander.expand(value_set("urn:v", {"system": "urn:large", "filter": [{"property": "code", "op": "regex", "value": "c.*"}]}))

    async def metered() -> int:
        return len(await budget.metered(work, budget.Budget(budget.BudgetLimits(), next_turn)))

    assert asyncio.run(metered()) == 5000
    assert turns > 10_000  # for each concept that is tested, and for each that is shown
