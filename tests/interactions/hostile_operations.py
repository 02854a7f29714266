"""Hostile Parameters of operations, drawn at random."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.interactions.hostile_requests import JSON, Chance, Hostile

OPERATIONS: Final = (
    "/Observation/$lastn", "/Patient/adult/$everything", "/Patient/$everything", "/Group/x/$everything", "/Patient/adult/$summary",
    "/DocumentReference/$docref", "/Composition/$document", "/Patient/$match", "/$closure", "/ValueSet/$expand",
    "/ValueSet/$validate-code", "/CodeSystem/$lookup", "/CodeSystem/$validate-code", "/CodeSystem/$subsumes", "/ConceptMap/$translate",
    "/Patient/$export", "/$export", "/Observation/$validate",
)  # fmt: skip
NAMES: Final = (
    "patient", "subject", "category", "code", "max", "_count", "_type", "_since", "start", "end", "type", "on-demand", "id", "persist",
    "graph", "profile", "resource", "count", "onlyCertainMatches", "name", "version", "concept", "url", "system", "coding",
    "codeableConcept", "valueSet", "codeSystem", "conceptMap", "filter", "offset", "targetsystem", "_elements", "mode",
)  # fmt: skip
VALUES: Final[tuple[tuple[str, Any], ...]] = (
    ("valueString", "x"), ("valueUri", "http://hl7.org/fhir/administrative-gender"), ("valueCode", "male"), ("valueInteger", 1),
    ("valueBoolean", True), ("valueDecimal", 1.5), ("valueReference", {"reference": "Patient/adult"}),
    ("valueCoding", {"system": "http://loinc.org", "code": "718-7"}),
    ("valueCodeableConcept", {"coding": [{"system": "http://loinc.org", "code": "718-7"}], "text": "x"}),
    ("resource", {"resourceType": "Patient", "name": [{"family": "x"}], "birthDate": "2000-01-01"}),
    ("resource", {"resourceType": "ValueSet", "status": "active", "compose": {"include": [{"system": "urn:x"}]}}),
    ("part", [{"name": "x", "valueString": "x"}]), ("value", "x"), ("valueString", None), ("valuePeriod", {"start": "2020"}),
)  # fmt: skip


def operations(chance: Chance) -> Hostile:
    """An operation by POST, with Parameters of which some are spoilt."""
    parameters = []
    for _ in range(chance.choice((0, 1, 1, 2, 3, 5))):
        kind, value = chance.choice(VALUES)
        if chance.random() < 0.4:
            value = chance.spoilt(value) if isinstance(value, dict) else chance.value()
        parameters.append({"name": chance.choice(NAMES), kind: value})
    body: Any = {"resourceType": "Parameters", "parameter": parameters}
    body = chance.spoilt(body) if chance.random() < 0.2 else body
    later = [("prefer", "respond-async")] if chance.random() < 0.2 else []
    return Hostile("POST", chance.choice(OPERATIONS), headers=[JSON, *later], body=json.dumps(body).encode())
