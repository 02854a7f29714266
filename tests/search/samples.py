"""Sample resources with many indexed elements, for the tests of the index and of element paths."""

from __future__ import annotations

import json
from typing import Any

from fhir_server import jsontext

LOINC = "http://loinc.org"

LAB: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "glucose",
    "meta": {"profile": ["http://hl7.org/fhir/us/core/StructureDefinition/us-core-observation-lab"], "source": "urn:lab:1"},
    "identifier": [{"system": "urn:lab", "value": "123"}],
    "status": "final",
    "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
    "code": {"coding": [{"system": LOINC, "code": "2339-0"}, {"system": "urn:local", "code": "GLU"}], "text": "Glucose"},
    "subject": {"reference": "Patient/p1"},
    "encounter": {"reference": "Encounter/e1"},
    "effectiveDateTime": "2019-03-04T05:06:07+01:00",
    "issued": "2019-03-04T05:06:07.123+01:00",
    "performer": [{"reference": "Practitioner/d1"}, {"display": "Somebody"}],
    "valueQuantity": {"value": 5.40, "unit": "mmol/l", "system": "http://unitsofmeasure.org", "code": "mmol/L"},
}

_TEXTS: list[dict[str, Any]] = [
    LAB,
    {
        "resourceType": "Observation", "status": "final", "subject": {"reference": "Group/g1"},
        "code": {"coding": [{"system": LOINC, "code": "85354-9"}]}, "effectivePeriod": {"start": "2020-01", "end": "2020-02"},
        "component": [
            {"code": {"coding": [{"system": LOINC, "code": "8480-6"}]}, "valueQuantity": {"value": 120, "unit": "mmHg"}},
            {"code": {"coding": [{"system": LOINC, "code": "x"}]}, "valueCodeableConcept": {"coding": [{"code": "y"}]}},
            {"code": {"coding": [{"system": LOINC, "code": "z"}]}, "dataAbsentReason": {"coding": [{"code": "unknown"}]}},
        ],
        "hasMember": [{"reference": "Observation/o2"}, {"reference": "http://fhir.example/fhir/Observation/o3"}],
    },
    {
        "resourceType": "Observation", "status": "final", "code": {"text": "only text"},
        "valueCodeableConcept": {"coding": [{"code": "pos"}], "text": "Positive"}, "effectiveInstant": "2020-01-01T00:00:00Z",
    },
    {"resourceType": "Observation", "status": "final", "code": {"text": "t"}, "valueString": "Größer"},
    {"resourceType": "Observation", "status": "final", "code": {"text": "t"}, "valuePeriod": {"start": "2020"}},
    {
        "resourceType": "Patient", "id": "p1", "active": True, "birthDate": "1990-02-03", "gender": "female",
        "deceasedDateTime": "2020-05-06", "identifier": [{"system": "urn:mrn", "value": "1"}, {"value": "2"}],
        "name": [{"family": "Müller", "given": ["Anna", None, "Lena"], "text": "Anna Müller"}, {"family": "Maier"}],
        "telecom": [{"system": "phone", "value": "555"}, {"system": "email", "value": "a@b.example"}, {"value": "?"}],
        "address": [{"line": ["1 Main St"], "city": "Łódź", "postalCode": "90-001", "country": "PL", "use": "home"}],
        "communication": [{"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "pl"}]}}],
        "generalPractitioner": [{"reference": "Practitioner/d1"}], "managingOrganization": {"reference": "Organization/o1"},
        "link": [{"other": {"reference": "Patient/p0"}, "type": "replaces"}],
    },
    {"resourceType": "Patient", "id": "p2", "deceasedBoolean": False},
    {"resourceType": "Patient", "id": "p3"},
    {
        "resourceType": "Condition", "subject": {"reference": "Patient/p1"}, "onsetAge": {"value": 40, "code": "a"},
        "abatementRange": {"low": {"value": 41}, "high": {"value": 42}}, "recordedDate": "2020-01-01",
        "clinicalStatus": {"coding": [{"code": "active"}]}, "evidence": [{"code": [{"coding": [{"code": "ev"}]}]}],
        "stage": [{"summary": {"coding": [{"code": "s1"}]}}], "bodySite": [{"coding": [{"code": "arm"}]}],
    },
    {"resourceType": "Condition", "subject": {"reference": "Group/g"}, "onsetPeriod": {"start": "2001"}, "abatementString": "?"},
    {
        "resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": {"reference": "Patient/p1"},
        "medicationReference": {"reference": "Medication/m1"}, "authoredOn": "2020-01-01",
        "dosageInstruction": [{"timing": {"event": ["2020-01-01", "2020-01-05"]}}],
    },
    {
        "resourceType": "MedicationStatement", "status": "active", "subject": {"reference": "Patient/p1"},
        "medicationCodeableConcept": {"coding": [{"system": "rx", "code": "1"}]}, "effectivePeriod": {"end": "2020"},
    },
    {
        "resourceType": "Medication", "code": {"coding": [{"code": "c"}]},
        "ingredient": [{"itemCodeableConcept": {"coding": [{"code": "i"}]}}, {"itemReference": {"reference": "Substance/s"}}],
    },
    {
        "resourceType": "Encounter", "status": "finished", "class": {"system": "act", "code": "AMB"},
        "subject": {"reference": "Patient/p1"}, "period": {"start": "2020-01-01T10:00:00Z", "end": "2020-01-01T11:00:00Z"},
        "participant": [{"individual": {"reference": "Practitioner/d1"}}, {"individual": {"reference": "RelatedPerson/r1"}}],
        "location": [{"location": {"reference": "Location/l1"}, "period": {"start": "2020"}}],
        "length": {"value": 60, "code": "min"},
        "diagnosis": [{"condition": {"reference": "Condition/c1"}}], "reasonCode": [{"coding": [{"code": "r"}]}],
    },
    {
        "resourceType": "Appointment", "status": "booked", "start": "2021-01-01T10:00:00Z",
        "participant": [
            {"actor": {"reference": "Patient/p1"}, "status": "accepted"},
            {"actor": {"reference": "Location/l1"}, "status": "tentative"},
            {"actor": {"reference": "http://other.example/fhir/Practitioner/9"}, "status": "accepted"},
            {"actor": {"reference": "urn:uuid:9f7c7f3e-6f0c-4a1c-9a0b-000000000000", "type": "Patient"}, "status": "accepted"},
        ],
    },
    {
        "resourceType": "AuditEvent", "type": {"system": "t", "code": "rest"}, "recorded": "2020-01-01T00:00:00.123456Z",
        "agent": [{"who": {"reference": "Patient/p1"}, "policy": ["http://p"]}, {"network": {"address": "10.0.0.1"}}],
        "source": {"observer": {"reference": "Device/d"}, "site": "here"},
        "entity": [{"what": {"reference": "Observation/o1"}, "name": "An Entity"}],
    },
    {
        "resourceType": "Provenance", "target": [{"reference": "Observation/o/_history/2"}, {"reference": "Patient/p1"}],
        "recorded": "2020-01-01T00:00:00Z", "occurredDateTime": "2020", "agent": [{"who": {"reference": "Practitioner/d"}}],
    },
    {
        "resourceType": "QuestionnaireResponse", "status": "completed", "questionnaire": "http://q.example/Questionnaire/phq|1.2",
        "subject": {"reference": "Patient/p1"}, "authored": "2020-01-01",
    },
    {
        "resourceType": "ActivityDefinition", "url": "http://a.example/1", "version": "1", "status": "active", "name": "Näme",
        "useContext": [
            {"code": {"code": "age"}, "valueRange": {"low": {"value": 1}, "high": {"value": 2}}},
            {"code": {"code": "focus"}, "valueCodeableConcept": {"coding": [{"code": "cc"}]}},
            {"code": {"code": "n"}, "valueQuantity": {"value": 3, "unit": "mg"}},
        ],
        "relatedArtifact": [
            {"type": "composed-of", "resource": "http://x.example/a|1"}, {"type": "depends-on", "resource": "http://x.example/b"}
        ],
        "effectivePeriod": {"start": "2020", "end": "2021"},
    },
    {
        "resourceType": "Goal", "lifecycleStatus": "active", "subject": {"reference": "Patient/p1"}, "startDate": "2020-01-01",
        "target": [{"dueDate": "2021-01-01"}, {"dueDuration": {"value": 1}}],
    },
    {
        "resourceType": "RiskAssessment", "status": "final", "subject": {"reference": "Patient/p"},
        "prediction": [{"probabilityDecimal": 0.25}],
    },
    {
        "resourceType": "Composition", "status": "final", "date": "2020", "title": "T",
        "relatesTo": [{"targetReference": {"reference": "Composition/c"}}, {"targetIdentifier": {"value": "i"}}],
        "section": [{"entry": [{"reference": "Condition/c"}], "code": {"coding": [{"code": "s"}]}}],
    },
    {"resourceType": "MessageHeader", "eventUri": "urn:event", "source": {"name": "s", "endpoint": "http://e.example"}},
    {"resourceType": "MessageHeader", "eventCoding": {"system": "s", "code": "c"}, "source": {"endpoint": "http://e.example"}},
    {
        "resourceType": "Invoice", "status": "issued", "subject": {"reference": "Patient/p"},
        "totalGross": {"value": 12.5, "currency": "USD"},
        "participant": [{"role": {"coding": [{"code": "r"}]}, "actor": {"reference": "Practitioner/d"}}],
    },
    {
        "resourceType": "Group", "type": "person", "actual": True, "code": {"coding": [{"code": "g"}]},
        "characteristic": [{"code": {"coding": [{"code": "k"}]}, "valueBoolean": True, "exclude": False}],
        "member": [{"entity": {"reference": "Patient/p"}}],
    },
    {
        "resourceType": "Coverage", "status": "active", "beneficiary": {"reference": "Patient/p"}, "subscriberId": "no-reference",
        "payor": [{"reference": "Organization/o"}], "class": [{"type": {"coding": [{"code": "plan"}]}, "value": "gold"}],
    },
    {
        "resourceType": "Consent", "status": "active", "dateTime": "2020", "patient": {"reference": "Patient/p"},
        "sourceReference": {"reference": "DocumentReference/d"},
        "provision": {
            "period": {"start": "2020"}, "dataPeriod": {"start": "1999"}, "purpose": [{"system": "s", "code": "TREAT"}],
            "actor": [{"reference": {"reference": "RelatedPerson/r"}}], "data": [{"reference": {"reference": "Observation/o"}}],
        },
    },
]  # fmt: skip

# Parsed as the server parses them: decimals become Decimal.
RESOURCES: list[dict[str, Any]] = [jsontext.parse(json.dumps(resource).encode()) for resource in _TEXTS]
