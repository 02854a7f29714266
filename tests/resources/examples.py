"""A valid resource of each declared type, with enough elements to plant a defect anywhere."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
DIV = '<div xmlns="http://www.w3.org/1999/xhtml"><p>Glucose &lt; 6</p></div>'


def concept(code: str, system: str = LOINC) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def to(reference: str) -> dict[str, Any]:
    return {"reference": reference}


def hl7(code: str, name: str) -> dict[str, Any]:
    return concept(code, f"http://terminology.hl7.org/CodeSystem/{name}")


VALID: dict[str, dict[str, Any]] = {
    "Basic": {
        "resourceType": "Basic",
        "code": concept("state", "http://example.org/app"),
        "subject": {"reference": "Patient/adult"},
        "created": "2026-11-21",
        "extension": [{"url": "http://example.org/view", "valueString": "list"}],
    },
    "Patient": {
        "resourceType": "Patient",
        "id": "adult",
        "meta": {"versionId": "1", "lastUpdated": "2026-11-21T10:00:00.000Z", "profile": ["http://example.org/p"]},
        "identifier": [{"use": "usual", "system": "urn:oid:1.2.3", "value": "12345", "period": {"start": "2001-05-06"}}],
        "active": True,
        "name": [
            {"use": "official", "family": "Chalmers", "given": ["Peter", "James"]},
            {"given": ["P", None], "_given": [None, {"extension": [{"url": "http://x.org/e", "valueString": "unknown"}]}]},
        ],
        "telecom": [{"system": "phone", "value": "555", "rank": 1}],
        "gender": "male",
        "birthDate": "1974-12-25",
        "_birthDate": {
            "extension": [
                {"url": "http://hl7.org/fhir/StructureDefinition/patient-birthTime", "valueDateTime": "1974-12-25T14:35:45-05:00"}
            ]
        },
        "deceasedBoolean": False,
        "address": [{"line": ["534 Erewhon St"], "city": "Pleasant", "period": {"start": "1974-12-25"}}],
        "contact": [{"relationship": [hl7("N", "v2-0131")], "name": {"family": "du Marché"}}],
        "communication": [{"language": concept("en", "urn:ietf:bcp:47"), "preferred": True}],
        "managingOrganization": to("Organization/1"),
        "link": [{"other": to("Patient/2"), "type": "seealso"}],
    },
    "Observation": {
        "resourceType": "Observation",
        "id": "glucose",
        "meta": {"tag": [{"system": "http://x.org", "code": "t"}]},
        "text": {"status": "generated", "div": DIV},
        "contained": [{"resourceType": "Practitioner", "id": "p", "name": [{"family": "Careful"}]}],
        "extension": [{"url": "http://x.org/nested", "extension": [{"url": "a", "valueDecimal": Decimal("1.50")}]}],
        "identifier": [{"system": "http://x.org/ids", "value": "6323"}],
        "status": "final",
        "category": [hl7("laboratory", "observation-category")],
        "code": concept("15074-8"),
        "subject": {"reference": "Patient/adult", "display": "P. van de Heuvel"},
        "encounter": to("Encounter/1"),
        "effectivePeriod": {"start": "2013-04-02T09:30:10+01:00", "end": "2013-04-02T09:30:10+01:00"},
        "issued": "2013-04-03T15:30:10.123+01:00",
        "performer": [to("#p")],
        "valueQuantity": {"value": Decimal("6.30"), "unit": "mmol/l", "system": UCUM, "code": "mmol/L", "comparator": "<"},
        "interpretation": [hl7("H", "v3-ObservationInterpretation")],
        "note": [{"time": "2013-04-03", "text": "fasting"}],
        "referenceRange": [{"low": {"value": Decimal("3.1"), "unit": "mmol/l"}, "high": {"value": 6, "unit": "mmol/l"}}],
        "component": [{"code": concept("1-8"), "valueInteger": 3}, {"code": concept("2-6"), "valueBoolean": True}],
    },
    "MedicationStatement": {
        "resourceType": "MedicationStatement",
        "status": "active",
        "medicationCodeableConcept": concept("860975", "http://www.nlm.nih.gov/research/umls/rxnorm"),
        "subject": to("Patient/adult"),
        "effectiveDateTime": "2015-01",
        "dateAsserted": "2015-02-22",
        "dosage": [
            {
                "sequence": 1,
                "text": "once a day",
                "asNeededBoolean": False,
                "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d", "timeOfDay": ["08:00:00"]}},
                "doseAndRate": [{"doseQuantity": {"value": 1, "unit": "tablet"}}],
            }
        ],
    },
    "MedicationRequest": {
        "resourceType": "MedicationRequest",
        "status": "active",
        "intent": "order",
        "contained": [{"resourceType": "Medication", "id": "med", "code": concept("1", "http://x.org")}],
        "medicationReference": to("#med"),
        "subject": to("Patient/adult"),
        "authoredOn": "2015-01-15",
        "dispenseRequest": {"numberOfRepeatsAllowed": 0, "expectedSupplyDuration": {"value": 30, "system": UCUM, "code": "d"}},
    },
    "Medication": {
        "resourceType": "Medication",
        "status": "active",
        "code": concept("313782", "http://www.nlm.nih.gov/research/umls/rxnorm"),
        "ingredient": [{"itemReference": to("Substance/1"), "strength": {"numerator": {"value": 5}, "denominator": {"value": 1}}}],
    },
    "Appointment": {
        "resourceType": "Appointment",
        "status": "booked",
        "serviceType": [hl7("57", "service-type")],
        "start": "2026-12-10T09:00:00Z",
        "end": "2026-12-10T11:00:00Z",
        "minutesDuration": 120,
        "participant": [
            {"actor": to("Patient/adult"), "required": "required", "status": "accepted"},
            {"type": [hl7("ATND", "v3-ParticipationType")], "status": "tentative"},
        ],
    },
    "Account": {
        "resourceType": "Account",
        "status": "active",
        "subject": [to("Patient/adult")],
        "servicePeriod": {"start": "2016-01-01"},
        "extension": [{"url": "http://x.org/balance", "valueMoney": {"value": Decimal("12.50"), "currency": "USD"}}],
        "coverage": [{"coverage": to("Coverage/1"), "priority": 1}],
    },
    "RelatedPerson": {
        "resourceType": "RelatedPerson",
        "active": True,
        "patient": to("Patient/child"),
        "relationship": [hl7("PRN", "v3-RoleCode")],
        "name": [{"family": "Maxwell"}],
        "birthDate": "1980",
    },
    "Encounter": {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "type": [concept("270427003", "http://snomed.info/sct")],
        "subject": to("Patient/adult"),
        "period": {"start": "2013-03-11", "end": "2013-03-11"},
        "length": {"value": 1, "system": UCUM, "code": "h"},
        "location": [{"location": to("Location/1"), "status": "completed"}],
    },
    "Condition": {
        "resourceType": "Condition",
        "clinicalStatus": hl7("resolved", "condition-clinical"),
        "verificationStatus": hl7("confirmed", "condition-ver-status"),
        "code": concept("39065001", "http://snomed.info/sct"),
        "subject": to("Patient/adult"),
        "onsetAge": {"value": 12, "system": UCUM, "code": "a"},
        "abatementString": "around April",
    },
    "AllergyIntolerance": {
        "resourceType": "AllergyIntolerance",
        "clinicalStatus": hl7("active", "allergyintolerance-clinical"),
        "type": "allergy",
        "category": ["food"],
        "criticality": "high",
        "patient": to("Patient/adult"),
        "reaction": [{"manifestation": [concept("39579001", "http://snomed.info/sct")], "severity": "severe"}],
    },
    "Immunization": {
        "resourceType": "Immunization",
        "status": "completed",
        "vaccineCode": concept("140", "http://hl7.org/fhir/sid/cvx"),
        "patient": to("Patient/adult"),
        "occurrenceDateTime": "2013-01-10",
        "expirationDate": "2015-02-15",
        "doseQuantity": {"value": 5, "system": UCUM, "code": "mg"},
        "education": [{"documentType": "253088698300010311120702"}],
    },
    "Coverage": {
        "resourceType": "Coverage",
        "status": "active",
        "beneficiary": to("Patient/adult"),
        "payor": [to("Organization/2")],
        "costToBeneficiary": [{"valueMoney": {"value": 20, "currency": "USD"}}],
    },
    "DocumentReference": {
        "resourceType": "DocumentReference",
        "status": "current",
        "docStatus": "final",
        "subject": to("Patient/adult"),
        "category": [concept("clinical-note", "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category")],
        "content": [{"attachment": {"contentType": "text/plain", "data": "aGVsbG8=", "size": 5}}],
    },
    "DiagnosticReport": {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": concept("58410-2"),
        "subject": to("Patient/adult"),
        "effectiveDateTime": "2011-03-04T08:30:00+11:00",
        "issued": "2011-03-04T11:45:33+11:00",
        "result": [to("Observation/1")],
    },
    "Procedure": {
        "resourceType": "Procedure",
        "status": "completed",
        "code": concept("80146002", "http://snomed.info/sct"),
        "subject": to("Patient/adult"),
        "performedDateTime": "2013-04-05",
        "performer": [{"actor": to("Practitioner/1")}],
    },
    "Practitioner": {"resourceType": "Practitioner", "name": [{"family": "Careful"}], "qualification": [{"code": concept("BS")}]},
    "PractitionerRole": {
        "resourceType": "PractitionerRole",
        "practitioner": to("Practitioner/1"),
        "specialty": [concept("1", "http://nucc.org")],
        "availableTime": [{"daysOfWeek": ["mon", "tue"], "availableStartTime": "08:00:00"}],
    },
    "Organization": {"resourceType": "Organization", "name": "Good Health", "telecom": [{"system": "phone", "value": "1"}]},
    "Location": {
        "resourceType": "Location",
        "status": "active",
        "mode": "instance",
        "position": {"longitude": Decimal("-83.69"), "latitude": Decimal("42.25")},
    },
    "HealthcareService": {"resourceType": "HealthcareService", "providedBy": to("Organization/1"), "name": "Dermatology"},
    "Consent": {
        "resourceType": "Consent",
        "status": "active",
        "scope": hl7("patient-privacy", "consentscope"),
        "category": [concept("59284-0")],
        "patient": to("Patient/child"),
        "policy": [{"uri": "http://x.org/policy"}],
        "provision": {
            "type": "permit",
            "period": {"start": "2020-01-01"},
            "provision": [{"type": "permit", "actor": [{"role": hl7("GRANTEE", "v3-RoleCode"), "reference": to("RelatedPerson/x")}]}],
        },
    },
    "Provenance": {
        "resourceType": "Provenance",
        "target": [to("Observation/1/_history/1")],
        "recorded": "2015-06-27T08:39:24+10:00",
        "agent": [{"who": to("Practitioner/1")}],
    },
    "AuditEvent": {
        "resourceType": "AuditEvent",
        "type": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "110112"},
        "action": "E",
        "recorded": "2015-08-22T23:42:24Z",
        "outcome": "0",
        "agent": [{"requestor": True, "altId": "601847123"}],
        "source": {"observer": {"display": "Cloud"}},
        "entity": [{"what": to("Patient/adult"), "query": "aHR0cDo="}],
    },
    "CareTeam": {
        "resourceType": "CareTeam",
        "status": "active",
        "subject": to("Patient/adult"),
        "participant": [{"member": to("Practitioner/1")}],
    },
    "Communication": {
        "resourceType": "Communication",
        "status": "completed",
        "subject": to("Patient/adult"),
        "payload": [{"contentString": "Patient 1 has a very high serum potassium value"}],
    },
    "Binary": {"resourceType": "Binary", "contentType": "application/pdf", "data": "aGVsbG8="},
    "Bundle": {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a",
                "request": {"method": "POST", "url": "Patient"},
                "resource": {"resourceType": "Patient", "gender": "female"},
            },
            {"request": {"method": "DELETE", "url": "Patient/1"}},
        ],
    },
    "Claim": {
        "resourceType": "Claim",
        "status": "active",
        "type": hl7("oral", "claim-type"),
        "use": "claim",
        "patient": to("Patient/adult"),
        "created": "2014-08-16",
        "provider": to("Organization/1"),
        "priority": hl7("normal", "processpriority"),
        "insurance": [{"sequence": 1, "focal": True, "coverage": to("Coverage/1")}],
        "item": [{"sequence": 1, "productOrService": concept("1200"), "net": {"value": Decimal("135.57"), "currency": "USD"}}],
    },
    "ExplanationOfBenefit": {
        "resourceType": "ExplanationOfBenefit",
        "status": "active",
        "type": hl7("oral", "claim-type"),
        "use": "claim",
        "patient": to("Patient/adult"),
        "created": "2014-08-16",
        "insurer": to("Organization/3"),
        "provider": to("Practitioner/1"),
        "outcome": "complete",
        "insurance": [{"focal": True, "coverage": to("Coverage/1")}],
    },
    "ServiceRequest": {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "code": concept("1"),
        "subject": to("Patient/adult"),
        "occurrenceTiming": {"event": ["2026-01-01"]},
    },
    "CarePlan": {
        "resourceType": "CarePlan",
        "status": "active",
        "intent": "plan",
        "subject": to("Patient/adult"),
        "activity": [{"detail": {"status": "completed", "scheduledString": "daily"}}],
    },
    "Goal": {
        "resourceType": "Goal",
        "lifecycleStatus": "active",
        "description": {"text": "Target weight is 160 to 180 lbs."},
        "subject": to("Patient/adult"),
        "target": [{"measure": concept("3141-9"), "detailRange": {"low": {"value": 160}, "high": {"value": 180}}}],
    },
}


def example(name: str) -> dict[str, Any]:
    """A copy to spoil."""
    return copy.deepcopy(VALID[name])
