"""The cases of :mod:`tests.profiles.profile_set` for slices: each kind of discriminator, and each rule for other items."""

from __future__ import annotations

from typing import Final

from tests.profiles.profile_set import (
    BASE,
    CORE,
    SYSTEM,
    VALUE_SET,
    Case,
    Defect,
    component,
    concept,
    discriminated,
    observation,
    of,
    patient,
    structure,
)

PAIR: Final = [component("8480-6", valueInteger=120), component("8462-4", valueInteger=80)]
SLICES: Final = (
    {"id": "Observation.component:upper", "min": 1, "max": "1"},
    {"id": "Observation.component:upper.code", "min": 1, "max": "1", "patternCodeableConcept": concept("8480-6")},
    {"id": "Observation.component:upper.value[x]", "min": 1, "max": "1", "type": of("integer")},
    {"id": "Observation.component:lower", "min": 0, "max": "1"},
    {"id": "Observation.component:lower.code", "min": 1, "max": "1", "patternCodeableConcept": concept("8462-4")},
)
OTHER: Final = component("8478-0", valueInteger=93)


SLICE_CASES: Final = {
    "slice-pattern": Case(
        structure("slice-pattern", "Observation", discriminated("Observation.component", "pattern", "code"), *SLICES),
        observation(component=PAIR),
        (
            Defect({"component": PAIR[1:]}, "required", "Observation.component"),
            Defect({"component": [*PAIR, PAIR[0]]}, "structure", "Observation.component"),
            Defect({"component": [component("8480-6", valueString="x"), PAIR[1]]}, "structure", "Observation.component[0].valueString"),
        ),
        ({"component": [OTHER, *PAIR, OTHER]}, {"component": PAIR[:1]}),
    ),
    "slice-closed": Case(
        structure("slice-closed", "Observation", discriminated("Observation.component", "pattern", "code", "closed"), *SLICES),
        observation(component=PAIR),
        (Defect({"component": [*PAIR, OTHER]}, "structure", "Observation.component[2]"),),
    ),
    "slice-open-at-end": Case(
        structure("slice-open-at-end", "Observation", discriminated("Observation.component", "pattern", "code", "openAtEnd"), *SLICES),
        observation(component=[*PAIR, OTHER]),
        (Defect({"component": [PAIR[0], OTHER, PAIR[1]]}, "structure", "Observation.component[2]"),),
        ({"component": PAIR[::-1]},),
    ),
    "slice-ordered": Case(
        structure("slice-ordered", "Observation", discriminated("Observation.component", "pattern", "code", ordered=True), *SLICES),
        observation(component=[PAIR[0], OTHER, PAIR[1]]),
        (Defect({"component": PAIR[::-1]}, "structure", "Observation.component[1]"),),
    ),
    "slice-value": Case(
        structure(
            "slice-value",
            "Patient",
            discriminated("Patient.identifier", "value", "system"),
            {"id": "Patient.identifier:own", "min": 1, "max": "1"},
            {"id": "Patient.identifier:own.system", "min": 1, "fixedUri": "http://x.example/own"},
            {"id": "Patient.identifier:own.value", "min": 1},
        ),
        patient(identifier=[{"system": "http://x.example/other"}, {"system": "http://x.example/own", "value": "1"}]),
        (
            Defect({"identifier": [{"system": "http://x.example/other"}]}, "required", "Patient.identifier"),
            Defect({"identifier": [{"system": "http://x.example/own"}]}, "required", "Patient.identifier[0].value"),
        ),
    ),
    "slice-binding": Case(
        structure(
            "slice-binding",
            "Observation",
            discriminated("Observation.category", "value", "$this"),
            {"id": "Observation.category:warm", "min": 1, "max": "1", "binding": {"strength": "required", "valueSet": VALUE_SET}},
        ),
        observation(category=[concept("x"), concept("red", SYSTEM)]),
        (
            Defect({"category": [concept("blue", SYSTEM)]}, "required", "Observation.category"),
            Defect({"category": [concept("red", SYSTEM), concept("amber", SYSTEM)]}, "structure", "Observation.category"),
        ),
    ),
    "slice-exists": Case(
        structure(
            "slice-exists",
            "Patient",
            discriminated("Patient.telecom", "exists", "period"),
            {"id": "Patient.telecom:past", "min": 0, "max": "1"},
            {"id": "Patient.telecom:past.period", "min": 1},
            {"id": "Patient.telecom:present", "min": 1},
            {"id": "Patient.telecom:present.period", "max": "0"},
            {"id": "Patient.telecom:present.rank", "min": 1},
        ),
        patient(telecom=[{"rank": 1}, {"period": {"end": "2020"}}]),
        (
            Defect({"telecom": [{"period": {"end": "2020"}}]}, "required", "Patient.telecom"),
            Defect({"telecom": [{"use": "home"}]}, "required", "Patient.telecom[0].rank"),
            Defect({"telecom": [{"rank": 1}, *[{"period": {"end": "2020"}}] * 2]}, "structure", "Patient.telecom"),
        ),
    ),
    "slice-type": Case(
        structure(
            "slice-type",
            "Observation",
            discriminated("Observation.value[x]", "type", "$this"),
            {"id": "Observation.value[x]:valueQuantity", "max": "1", "type": of("Quantity")},
            {"id": "Observation.value[x]:valueQuantity.unit", "min": 1},
        ),
        observation(valueQuantity={"value": 1, "unit": "kg"}),
        (Defect({"valueQuantity": {"value": 1}}, "required", "Observation.valueQuantity.unit"),),
        ({"valueQuantity": None, "valueString": "x"},),
    ),
    "slice-target-type": Case(
        structure(
            "slice-target-type",
            "Observation",
            discriminated("Observation.performer", "type", "$this.resolve()"),
            {"id": "Observation.performer:person", "min": 1, "type": of("Reference", targetProfile=[f"{CORE}/Practitioner"])},
        ),
        observation(performer=[{"reference": "Practitioner/doctor"}]),
        (Defect({"performer": [{"reference": "Organization/clinic"}]}, "required", "Observation.performer"),),
    ),
    "slice-profile": Case(
        structure(
            "slice-profile",
            "Bundle",
            discriminated("Bundle.entry", "profile", "resource"),
            {"id": "Bundle.entry:named", "min": 1, "max": "1"},
            {"id": "Bundle.entry:named.resource", "min": 1, "type": of("Patient", profile=[f"{BASE}/StructureDefinition/cardinality"])},
        ),
        {
            "resourceType": "Bundle",
            "type": "collection",
            "entry": [{"resource": patient(name=[{"family": "A"}])}, {"resource": patient(active=True)}],
        },
        (Defect({"entry": [{"resource": patient(active=True)}]}, "required", "Bundle.entry"),),
    ),
}
