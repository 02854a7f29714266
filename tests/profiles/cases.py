"""The cases of all kinds of rules, and profiles of which something cannot be checked."""

from __future__ import annotations

from typing import Final

from fhir_server.packages.archive import Package
from tests.profiles.profile_set import (
    BASE,
    CORE,
    LOINC,
    SYSTEM,
    VALUE_SET,
    Case,
    Defect,
    concept,
    observation,
    of,
    package,
    patient,
    rules,
    structure,
)
from tests.profiles.slice_cases import SLICE_CASES

HUE: Final = structure(
    "hue",
    "Extension",
    {"id": "Extension.url", "min": 1, "max": "1", "fixedUri": f"{BASE}/StructureDefinition/hue"},
    {"id": "Extension.value[x]", "min": 1, "max": "1", "type": of("code")},
    context=[{"type": "element", "expression": "Element"}],
)
HUE_URL: Final = str(HUE["url"])
HUED: Final = patient(extension=[{"url": HUE_URL, "valueCode": "red"}])


CASES: Final = {
    **SLICE_CASES,
    "cardinality": Case(
        structure(
            "cardinality", "Patient", {"id": "Patient.name", "min": 1, "max": "2"}, {"id": "Patient.name.family", "min": 1, "max": "1"}
        ),
        patient(name=[{"family": "A"}]),
        (
            Defect({"name": None}, "required", "Patient.name"),
            Defect({"name": [{"family": "A"}, {"given": ["B"]}]}, "required", "Patient.name[1].family"),
            Defect({"name": [{"family": "A"}] * 3}, "structure", "Patient.name"),
        ),
        ({"name": [{"_family": {"extension": [{"url": f"{CORE}/data-absent-reason", "valueCode": "unknown"}]}}]},),
    ),
    "prohibited": Case(
        structure("prohibited", "Patient", {"id": "Patient.contact", "max": "0"}),
        patient(active=True),
        (Defect({"contact": [{"name": {"text": "A"}}]}, "structure", "Patient.contact"),),
    ),
    "fixed": Case(
        structure("fixed", "Observation", {"id": "Observation.code", "min": 1, "fixedCodeableConcept": concept("8867-4")}),
        observation(),
        (
            Defect({"code": concept("8480-6")}, "value", "Observation.code"),
            Defect({"code": {**concept("8867-4"), "text": "more"}}, "value", "Observation.code"),
        ),
    ),
    "fixed-number": Case(
        structure("fixed-number", "Observation", {"id": "Observation.valueInteger", "min": 1, "fixedInteger": 1}),
        observation(valueInteger=1),
        (
            Defect({"valueInteger": 2}, "value", "Observation.valueInteger"),
            Defect({"valueInteger": None}, "required", "Observation.valueInteger"),
        ),
    ),
    "pattern": Case(
        structure("pattern", "Observation", {"id": "Observation.code", "min": 1, "patternCodeableConcept": concept("8867-4")}),
        observation(code={"coding": [{"system": "http://x.example", "code": "x"}, {"system": LOINC, "code": "8867-4", "display": "more"}]}),
        (Defect({"code": concept("8867-4", "http://x.example")}, "value", "Observation.code"),),
    ),
    "type": Case(
        structure("type", "Observation", {"id": "Observation.value[x]", "type": [*of("Quantity"), *of("string")]}),
        observation(valueQuantity={"value": 1}),
        (Defect({"valueQuantity": None, "valueInteger": 1}, "structure", "Observation.valueInteger"),),
        ({"valueQuantity": None, "valueString": "x"},),
    ),
    "target": Case(
        structure(
            "target",
            "Observation",
            {"id": "Observation.subject", "type": of("Reference", targetProfile=[f"{BASE}/StructureDefinition/cardinality"])},
        ),
        observation(subject={"reference": "Patient/adult"}),
        (
            Defect({"subject": {"reference": "Location/clinic"}}, "value", "Observation.subject.reference"),
            Defect({"subject": {"type": "Location", "display": "x"}}, "value", "Observation.subject.type"),
        ),
        ({"subject": {"reference": "https://elsewhere.example/fhir/Patient/1"}},),
    ),
    "limits": Case(
        structure(
            "limits",
            "Observation",
            {"id": "Observation.valueInteger", "minValueInteger": 1, "maxValueInteger": 9},
            {"id": "Observation.valueString", "maxLength": 3},
        ),
        observation(valueInteger=9),
        (
            Defect({"valueInteger": 0}, "value", "Observation.valueInteger"),
            Defect({"valueInteger": 10}, "value", "Observation.valueInteger"),
            Defect({"valueInteger": None, "valueString": "four"}, "value", "Observation.valueString"),
        ),
    ),
    "invariant": Case(
        structure(
            "invariant",
            "Observation",
            {"id": "Observation", "constraint": rules("x-1", "value.exists() or note.exists()")},
            {"id": "Observation.note", "constraint": rules("x-2", "time.exists()")},
        ),
        observation(valueInteger=1),
        (Defect({"valueInteger": None}, "invariant", "Observation"), Defect({"note": [{"text": "x"}]}, "invariant", "Observation.note[0]")),
        ({"valueInteger": None, "note": [{"time": "2026-01-01", "text": "x"}]},),
    ),
    "binding": Case(
        structure(
            "binding", "Observation", {"id": "Observation.code", "min": 1, "binding": {"strength": "required", "valueSet": VALUE_SET}}
        ),
        observation(code=concept("red", SYSTEM)),
        (
            Defect({"code": concept("blue", SYSTEM)}, "code-invalid", "Observation.code"),
            Defect({"code": concept("red")}, "code-invalid", "Observation.code"),
            Defect({"code": {"text": "red"}}, "code-invalid", "Observation.code"),
        ),
        ({"code": {"coding": [{"system": LOINC, "code": "8867-4"}, {"system": SYSTEM, "code": "red"}]}},),
    ),
    "code-binding": Case(
        structure("code-binding", "Patient", {"id": "Patient.language", "binding": {"strength": "required", "valueSet": VALUE_SET}}),
        patient(language="red"),
        (Defect({"language": "de"}, "code-invalid", "Patient.language"),),
    ),
    "extension": Case(
        structure(
            "extension",
            "Patient",
            {"id": "Patient.extension", "min": 1},
            {"id": "Patient.extension:hue", "min": 1, "max": "1", "type": of("Extension", profile=[HUE_URL])},
        ),
        HUED,
        (
            Defect({"extension": [{"url": f"{CORE}/other", "valueCode": "red"}]}, "required", "Patient.extension"),
            Defect({"extension": HUED["extension"] * 2}, "structure", "Patient.extension"),
            Defect({"extension": [{"url": HUE_URL, "valueString": "red"}]}, "structure", "Patient.extension[0].valueString"),
            Defect(
                {"name": [{"extension": [{"url": HUE_URL, "valueString": "red"}]}]}, "structure", "Patient.name[0].extension[0].valueString"
            ),
        ),
    ),
    "shared-content": Case(
        structure(
            "shared-content",
            "Questionnaire",
            {"id": "Questionnaire.item.text", "min": 1},
            {"id": "Questionnaire.item.item", "contentReference": "#Questionnaire.item"},
        ),
        {
            "resourceType": "Questionnaire",
            "status": "active",
            "item": [{"linkId": "1", "type": "group", "text": "A", "item": [{"linkId": "2", "type": "string", "text": "B"}]}],
        },
        (
            Defect(
                {"item": [{"linkId": "1", "type": "group", "text": "A", "item": [{"linkId": "2", "type": "string"}]}]},
                "required",
                "Questionnaire.item[0].item[0].text",
            ),
        ),
    ),
    "differential": Case(
        structure(
            "differential",
            "Observation",
            {"id": "Observation.note", "min": 1},
            differential=True,
            base=f"{BASE}/StructureDefinition/pattern",
        ),
        observation(note=[{"text": "x"}]),
        (Defect({"note": None}, "required", "Observation.note"), Defect({"code": concept("8480-6")}, "value", "Observation.code")),
    ),
}

EXTENSIBLE: Final = structure(
    "extensible", "Observation", {"id": "Observation.code", "binding": {"strength": "extensible", "valueSet": VALUE_SET}}
)
UNUSABLE: Final = structure("unusable", "Observation", {"id": "Observation.component:a", "min": 1}, differential=True)
WARNING: Final = structure("warning", "Observation", {"id": "Observation", "constraint": rules("x-3", "note.exists()", "warning")})
UNEVALUATED: Final = structure("unevaluated", "Observation", {"id": "Observation", "constraint": rules("x-4", "trace('x').unheardOf()")})
NOT_HELD: Final = structure(
    "not-held", "Observation", {"id": "Observation.code", "binding": {"strength": "required", "valueSet": "http://x.example/elsewhere"}}
)
_TERMINOLOGY: Final = (
    {
        "resourceType": "CodeSystem",
        "id": "colours",
        "url": SYSTEM,
        "status": "active",
        "content": "complete",
        "concept": [{"code": "red"}, {"code": "amber"}, {"code": "blue"}],
    },
    {
        "resourceType": "ValueSet",
        "id": "warm",
        "url": VALUE_SET,
        "status": "active",
        "compose": {"include": [{"system": SYSTEM, "concept": [{"code": "red"}, {"code": "amber"}]}]},
    },
)


def whole_set() -> Package:
    """All of them."""
    profiles = [case.profile for case in CASES.values()]
    return package(*profiles, HUE, EXTENSIBLE, UNUSABLE, WARNING, UNEVALUATED, NOT_HELD, *_TERMINOLOGY)
