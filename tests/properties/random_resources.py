"""Random valid resources of every R4 type, full of references: made from HL7's definitions."""

from __future__ import annotations

import random
from typing import Any

from fhir_server import jsontext
from fhir_server.resources import definitions, requirements, validate
from fhir_server.resources.definitions import Element
from fhir_server.resources.requirements import Place
from tests.noninterference.resource_factory import LOINC, coded

Json = dict[str, Any]
DIV = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}
IDS = ("a", "b", "c")
_PRIMITIVES: dict[str, Any] = {
    "boolean": True, "integer": 1, "positiveInt": 1, "unsignedInt": 1, "decimal": 1, "date": "2026-01-01", "dateTime": "2026-01-01",
    "instant": "2026-01-01T00:00:00Z", "time": "10:00:00", "base64Binary": "eA==", "uri": "http://x.example/u", "url": "http://x.example/u",
    "canonical": "http://x.example/u", "oid": "urn:oid:1.2.3", "uuid": "urn:uuid:c757873d-ec9a-4326-a141-556f43239520", "id": "x",
    "string": "words", "markdown": "words", "code": "x",
}  # fmt: skip
_LEFT_OUT = {"id", "meta", "implicitRules", "language", "contained", "modifierExtension", "text"}


class ResourceMaker:
    """Makes resources; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def valid(self, type: str, tries: int = 12) -> Json | None:
        """A valid resource of this type, or None if none came out."""
        for turn in range(tries):
            resource: Json = {"resourceType": type, "id": "x"} | self._object(Place(type, type), 0, 0.8 - turn * 0.06)
            if any(element.path == f"{type}.text" for element in definitions.elements(type)) and self.random.random() < 0.7:
                resource["text"] = DIV
            for name in definitions.references(type):
                if name == "subject" and "subject" in resource:
                    resource["subject"] = {"reference": "Patient/p"}
            if not validate.check(type, jsontext.parse(jsontext.dumps(resource))):
                return resource
        return None

    def _object(self, place: Place, depth: int, density: float) -> Json:
        found: Json = {}
        for element in definitions.elements(place.definition):
            parent, _, name = element.path.rpartition(".")
            if parent != place.path or name in _LEFT_OUT or not element.types or element.max == "0":
                continue
            if element.min == 0 and self.random.random() > self._wish(place, element, depth, density):
                continue
            kind = self.random.choice(element.types)
            member = name[:-3] + kind.code[0].upper() + kind.code[1:] if name.endswith("[x]") else name
            number = self.random.choice((1, 1, 2)) if element.max != "1" else 1
            values = [value for _ in range(number) if (value := self._value(place, element, member, kind, depth, density)) is not None]
            if values:
                found[member] = values if element.max != "1" else values[0]
        return found

    def _wish(self, place: Place, element: Element, depth: int, density: float) -> float:
        codes = {kind.code for kind in element.types}
        if element.path.endswith("extension"):
            return 0.08 if depth == 0 else 0.0
        if "Reference" in codes:
            return density
        if codes & {"BackboneElement", "Annotation"}:
            return density * 0.7 if depth < 3 else 0.0
        return 0.12 if depth == 0 else 0.04

    def _value(self, place: Place, element: Element, member: str, kind: Any, depth: int, density: float) -> Any:
        if kind.code == "Reference":
            types = [type for type in kind.targets if type != "Resource"] or ["Observation", "Condition", "Patient"]
            return {"reference": f"{self.random.choice(types)}/{self.random.choice(IDS)}"}
        if kind.code == "Extension":
            return {"url": "http://x.example/e", "valueReference": {"reference": f"Observation/{self.random.choice(IDS)}"}}
        if kind.code == "CodeableConcept":
            return coded(LOINC, "718-7")
        if element.codes:
            return self.random.choice([code for codes in element.codes.values() for code in codes])
        if kind.code in _PRIMITIVES:
            return _PRIMITIVES[kind.code]
        inner = requirements._member_place(place, member)
        if inner is None or inner.definition == "Resource" or depth > 4:
            return None
        return self._object(inner, depth + 1, density) or None
