"""FHIRPath Patch (http://hl7.org/fhir/R4/fhirpatch.html) of the JSON text of a resource."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhir_server.errors import Problem
from fhir_server.writing import fhirpath_patch


def part(name: str, **value: Any) -> dict[str, Any]:
    return {"name": name, **value}


def operation(type: str, path: str, *value: dict[str, Any], **numbers: Any) -> dict[str, Any]:
    """``name`` is given among the numbers."""
    parts = [part("type", valueCode=type), part("path", valueString=path), *value]
    parts += [part(name, **{"valueInteger" if isinstance(given, int) else "valueString": given}) for name, given in numbers.items()]
    return {"name": "operation", "part": parts}


def patched(text: bytes, *operations: dict[str, Any]) -> bytes:
    type = json.loads(text)["resourceType"]
    body = json.dumps({"resourceType": "Parameters", "parameter": list(operations)}).encode()
    return fhirpath_patch.apply(fhirpath_patch.parse(body, type), text, type, 10_000)


ADULT = {
    "resourceType": "Patient", "birthDate": "1920-01-01", "_birthDate": {"id": "b"}, "gender": "male",
    "identifier": [{"system": "http://a", "value": "1"}, {"system": "http://b", "value": "2"}, {"system": "http://c", "value": "3"}],
    "name": [{"use": "official", "given": ["Ann", "Bea"], "_given": [None, {"id": "x"}]}, {"use": "usual", "given": ["Cy"]}],
    "contact": [{"name": {"text": "a name"}, "gender": "male"}], "deceasedBoolean": False,
    "extension": [{"url": "http://e", "valueString": "old"}],
}  # fmt: skip
DATE = part("value", valueDate="1930-01-01")


@pytest.mark.parametrize(
    ("change", "member", "result"),
    [
        (operation("replace", "Patient.birthDate", DATE), "birthDate", "1930-01-01"),
        (operation("delete", "Patient.birthDate"), "birthDate", None),
        (operation("delete", "Patient.maritalStatus"), "gender", "male"),  # nothing there
        (operation("add", "Patient", part("value", valueCodeableConcept={"text": "m"}), name="maritalStatus"),
         "maritalStatus", {"text": "m"}),
        (operation("add", "Patient", part("value", valueBoolean=True), name="active"), "active", True),
        (operation("replace", "Patient.contact[0].gender", part("value", valueCode="female")), "contact",
         [{"name": {"text": "a name"}, "gender": "female"}]),
        (operation("delete", "Patient.contact[0].name"), "contact", [{"gender": "male"}]),
        (operation("delete", "Patient.contact[0]"), "contact", None),
        (operation("insert", "Patient.identifier", part("value", valueIdentifier={"value": "x"}), index=1), "identifier",
         [ADULT["identifier"][0], {"value": "x"}, *ADULT["identifier"][1:]]),
        (operation("insert", "Patient.photo", part("value", valueAttachment={"title": "x"}), index=0), "photo", [{"title": "x"}]),
        (operation("move", "Patient.identifier", source=2, destination=0), "identifier",
         [ADULT["identifier"][2], *ADULT["identifier"][:2]]),
        (operation("add", "Patient", part("value", valueIdentifier={"value": "x"}), name="identifier"), "identifier",
         [*ADULT["identifier"], {"value": "x"}]),
        (operation("delete", "Patient.identifier.where(system = 'http://b' and value = '2')"), "identifier",
         [ADULT["identifier"][0], ADULT["identifier"][2]]),
        (operation("replace", "identifier.last().value", part("value", valueString="9")), "identifier",
         [*ADULT["identifier"][:2], {"system": "http://c", "value": "9"}]),
        (operation("replace", "Patient.deceased", part("value", valueDateTime="2020")), "deceasedDateTime", "2020"),
        (operation("replace", "Patient.deceased", part("value", valueDateTime="2020")), "deceasedBoolean", None),
        (operation("delete", "Patient.deceased.ofType(boolean)"), "deceasedBoolean", None),
        (operation("delete", "Patient.deceased.ofType(dateTime)"), "deceasedBoolean", False),
        (operation("replace", "Patient.extension('http://e').value", part("value", valueInteger=5)), "extension",
         [{"url": "http://e", "valueInteger": 5}]),
        (operation("add", "Patient", part("value", part=[part("gender", valueCode="male"),
                                                         part("telecom", valueContactPoint={"value": "1"}),
                                                         part("name", valueHumanName={"text": "n"})]), name="contact"),
         "contact", [*ADULT["contact"], {"gender": "male", "telecom": [{"value": "1"}], "name": {"text": "n"}}]),
        (operation("delete", "Patient.name.where(use = 'official').given[1]"), "name",
         [{"use": "official", "given": ["Ann"]}, ADULT["name"][1]]),
        (operation("insert", "Patient.name[0].given", part("value", valueString="Zoe"), index=0), "name",
         [{"use": "official", "given": ["Zoe", "Ann", "Bea"], "_given": [None, None, {"id": "x"}]}, ADULT["name"][1]]),
        (operation("move", "Patient.name[0].given", source=1, destination=0), "name",
         [{"use": "official", "given": ["Bea", "Ann"], "_given": [{"id": "x"}, None]}, ADULT["name"][1]]),
    ],
)  # fmt: skip
def test_operations_change_what_their_path_names(change: dict[str, Any], member: str, result: Any) -> None:
    after = json.loads(patched(json.dumps(ADULT).encode(), change))
    assert after.get(member) == result
    others = {name.lstrip("_") for name in {*after, *ADULT} if after.get(name) != ADULT.get(name)}
    assert others <= {member, "deceasedBoolean", "deceasedDateTime"}


def test_extensions_of_a_primitive_go_with_it() -> None:
    for change in (operation("delete", "Patient.birthDate"), operation("replace", "Patient.birthDate", DATE)):
        assert "_birthDate" not in json.loads(patched(json.dumps(ADULT).encode(), change))


@pytest.mark.parametrize(
    "change",
    [
        operation("replace", "Patient.maritalStatus", part("value", valueCodeableConcept={"text": "m"})),
        operation("replace", "Patient.identifier.value", part("value", valueString="x")),
        operation("replace", "Patient", part("value", valueString="x")),
        operation("delete", "Patient.identifier"),
        operation("delete", "Patient"),
        operation("add", "Patient", part("value", valueCode="male"), name="gender"),
        operation("add", "Patient", part("value", valueString="x"), name="colour"),
        operation("add", "Patient", part("value", valueQuantity={"value": 1}), name="deceased"),
        operation("add", "Patient.maritalStatus", part("value", valueString="x"), name="text"),
        operation("insert", "Patient.identifier", part("value", valueIdentifier={}), index=4),
        operation("insert", "Patient.identifier", part("value", valueIdentifier={}), index=-1),
        operation("insert", "Patient.gender", part("value", valueCode="male"), index=0),
        operation("insert", "Patient.identifier[0]", part("value", valueIdentifier={}), index=0),
        operation("move", "Patient.identifier", source=3, destination=0),
        operation("move", "Patient.photo", source=0, destination=0),
    ],
)
def test_operation_that_cannot_be_done_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(Problem) as refused:
        patched(json.dumps(ADULT).encode(), operation("replace", "Patient.birthDate", DATE), change)
    assert refused.value.kind == "unprocessable" and str(refused.value).startswith("Operation 1 (")


@pytest.mark.parametrize(
    "change",
    [
        operation("remove", "Patient.birthDate"), operation("replace", "Patient.birthDate"), operation("add", "Patient", DATE),
        operation("insert", "Patient.identifier", DATE), operation("move", "Patient.identifier", source=1), {"name": "operation"},
        {"name": "other", "part": [part("type", valueCode="delete")]}, operation("delete", "Patient..name"), operation("delete", ""),
        operation("delete", "Patient.name.where(given.matches('(a+)+$'))"), operation("delete", "Patient.link.other.resolve().name"),
        operation("delete", "Patient.name[x]"), operation("delete", "Patient.name.where(use)"), operation("delete", "%resource"),
        operation("delete", "Patient.name | Patient.photo"), operation("delete", "Patient." + "name." * 1000 + "x"),
        operation("delete", "Patient.birthDate", part("path", valueString="Patient.gender")), operation("delete", "Patient.name[-1]"),
    ],
)  # fmt: skip
def test_malformed_operation_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Problem) as refused:
        patched(json.dumps(ADULT).encode(), change)
    assert refused.value.kind == "invalid"


def test_digits_stay_as_written_in_both_texts() -> None:
    text = b'{"resourceType":"Observation","valueQuantity":{"value":1.50},"referenceRange":[{"low":{"value":0.10}}]}'
    body = (
        b'{"resourceType":"Parameters","parameter":[{"name":"operation","part":[{"name":"type","valueCode":"replace"},'
        b'{"name":"path","valueString":"Observation.referenceRange[0].low.value"},{"name":"value","valueDecimal":2.500}]}]}'
    )
    after = fhirpath_patch.apply(fhirpath_patch.parse(body, "Observation"), text, "Observation", 1000)
    assert after == text.replace(b"0.10", b"2.500")


def test_patch_without_operations_changes_nothing() -> None:
    assert patched(json.dumps(ADULT, separators=(",", ":")).encode()) == json.dumps(ADULT, separators=(",", ":")).encode()


def test_contained_resources_have_the_members_of_their_own_type() -> None:
    text = b'{"resourceType":"Observation","contained":[{"resourceType":"Patient","id":"p","birthDate":"1920-01-01"}]}'
    assert b"1930-01-01" in patched(text, operation("replace", "Observation.contained.where(id = 'p').birthDate", DATE))


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"resourceType":"Patient"}'])
def test_other_bodies_are_no_fhirpath_patch(body: bytes) -> None:
    with pytest.raises(Problem):
        fhirpath_patch.parse(body, "Patient")
