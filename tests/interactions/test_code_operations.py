"""``$lookup``, ``$validate-code``, ``$subsumes`` and ``$translate`` answer from what ships and from what is stored, with every store."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interactions.terminology_material import ANIMALS, GENDERS, PLACES, SEX, V3_SEX, ask, parts, post, terminology_server, values
from tests.served import Served

served = terminology_server()


def test_lookup_tells_what_is_known_of_a_code_with_its_supplements(served: Served) -> None:
    found = ask(served, "CodeSystem/$lookup", system=ANIMALS, code="DOG")
    assert values(found) == {"name": "Animals", "version": "1", "display": "Dog"}
    assert [one["value"] for one in parts(found, "designation")] == ["Hund", "D", "Chien"]
    properties = [(one["code"], one["value"]) for one in parts(found, "property")]
    assert properties == [("definition", "A dog."), ("child", "poodle"), ("child", "beagle"), ("legs", 4)]
    assert values(ask(served, "CodeSystem/$lookup", system=ANIMALS, code="dog", displayLanguage="fr"))["display"] == "Chien"
    some = ask(served, "CodeSystem/$lookup", system=ANIMALS, code="poodle", property="parent")
    assert [(one["code"], one["value"]) for one in parts(some, "property")] == [("parent", "dog")]
    coding = {"name": "coding", "valueCoding": {"system": V3_SEX, "code": "F"}}
    assert values(post(served, "CodeSystem/$lookup", coding))["display"] == "Female"


VALIDATED: tuple[tuple[str, dict[str, Any], bool], ...] = (
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "dog"}, True),
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "unicorn"}, False),
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "dog", "display": "dog"}, True),
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "dog", "display": "Hund"}, True),
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "dog", "display": "Cat"}, False),
    ("CodeSystem/$validate-code", {"url": ANIMALS, "code": "any", "abstract": "false"}, False),
    ("CodeSystem/animals/$validate-code", {"code": "beagle"}, True),
    ("ValueSet/$validate-code", {"url": GENDERS, "system": SEX, "code": "male"}, True),
    ("ValueSet/$validate-code", {"url": GENDERS, "system": SEX, "code": "m"}, False),
    ("ValueSet/$validate-code", {"url": GENDERS, "system": V3_SEX, "code": "M"}, False),
    ("ValueSet/all/$validate-code", {"system": ANIMALS, "code": "dodo"}, True),
    ("ValueSet/$validate-code", {"url": "http://hl7.org/fhir/ValueSet/condition-code", "system": "http://loinc.org", "code": "1"}, False),
)


@pytest.mark.parametrize(("path", "parameters", "is_right"), VALIDATED)
def test_a_code_is_validated_with_its_display(served: Served, path: str, parameters: dict[str, Any], is_right: bool) -> None:
    found = values(ask(served, path, **parameters))
    assert (found["result"], "message" in found) == (is_right, not is_right)


def test_a_codeable_concept_is_right_if_one_of_its_codings_is(served: Served) -> None:
    concept = {"coding": [{"system": ANIMALS, "code": "unicorn"}, {"system": ANIMALS, "code": "dog"}]}
    for path in ("CodeSystem", "ValueSet"):
        url = {"name": "url", "valueUri": ANIMALS if path == "CodeSystem" else "urn:tests:all"}
        asked = post(served, f"{path}/$validate-code", url, {"name": "codeableConcept", "valueCodeableConcept": concept})
        assert values(asked) == {"result": True, "display": "Dog"}


SUBSUMED = (
    ("dog", "beagle", "subsumes"), ("beagle", "dog", "subsumed-by"), ("dog", "Dog", "equivalent"), ("dog", "dodo", "not-subsumed"),
)  # fmt: skip


@pytest.mark.parametrize(("a", "b", "outcome"), SUBSUMED)
def test_subsumes_says_how_two_codes_stand(served: Served, a: str, b: str, outcome: str) -> None:
    assert values(ask(served, "CodeSystem/$subsumes", system=ANIMALS, codeA=a, codeB=b)) == {"outcome": outcome}
    assert values(ask(served, "CodeSystem/animals/$subsumes", codeA=a, codeB=b)) == {"outcome": outcome}


def test_translate_follows_maps(served: Served) -> None:
    found = ask(served, "ConceptMap/$translate", url="urn:tests:map", system=ANIMALS, code="dog")
    assert values(found) == {"result": True}
    coding = {"system": PLACES, "code": "kennel", "display": "Kennel", "userSelected": False}
    assert parts(found, "match") == [{"equivalence": "wider", "concept": coding, "source": "urn:tests:map"}]
    assert ask(served, "ConceptMap/map/$translate", system=ANIMALS, code="dog").body == found.body
    assert ask(served, "ConceptMap/$translate", system=ANIMALS, code="dog", source="urn:tests:all").body == found.body
    back = ask(served, "ConceptMap/map/$translate", system=PLACES, code="kennel", reverse="true")
    assert [(one["equivalence"], one["concept"]["code"]) for one in parts(back, "match")] == [("narrower", "dog")]
    for code, result, to in (("dodo", False, None), ("poodle", True, "house"), ("beagle", True, "house")):
        other = ask(served, "ConceptMap/map/$translate", system=ANIMALS, code=code)
        assert values(other)["result"] is result
        assert [one.get("concept", {}).get("code") for one in parts(other, "match")] == [to]
    assert values(ask(served, "ConceptMap/map/$translate", system="urn:none", code="dog"))["result"] is False


def test_translate_knows_r4_s_own_maps(served: Served) -> None:
    found = ask(served, "ConceptMap/$translate", system=SEX, code="male", targetsystem=V3_SEX)
    assert ("M", True) in [(one["concept"]["code"], values(found)["result"]) for one in parts(found, "match")]
