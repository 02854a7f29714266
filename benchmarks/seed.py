"""Generates the patient records to measure on: similar for every patient, and the same in every run.

The first patients are *watched*: they have an account, or share their record with a proxy, and about 1,000 resources each,
some of them sensitive.  The other patients make the store large.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

VERSION: Final = 1
"""Increase this with every change here, so that stores cached by an earlier version are not used."""

SELF_PATIENTS: Final = tuple(f"self-{number}" for number in range(4))
SHARED_PATIENTS: Final = tuple(f"shared-{number}" for number in range(4))
WATCHED_PATIENTS: Final = SELF_PATIENTS + SHARED_PATIENTS
WATCHED_ROWS: Final = 1000
CROWD_ROWS: Final = 500

LABS: Final = (
    ("17861-6", "Calcium [Mass/volume] in Serum or Plasma", "mg/dL"),
    ("1920-8", "Aspartate aminotransferase [Enzymatic activity/volume] in Serum or Plasma", "U/L"),
    ("2091-7", "Cholesterol in VLDL [Mass/volume] in Serum or Plasma", "mg/dL"),
    ("777-3", "Platelets [#/volume] in Blood by Automated count", "10*3/uL"),
    ("742-7", "Monocytes [#/volume] in Blood by Automated count", "10*3/uL"),
    ("1743-4", "Alanine aminotransferase [Enzymatic activity/volume] in Serum or Plasma", "U/L"),
    ("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL"),
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL"),
)
_SENSITIVE_LAB: Final = ("20447-9", "HIV 1 RNA [#/volume] (viral load) in Serum or Plasma", "{copies}/mL")
_DRUGS: Final = (("1202", "atenolol"), ("2409", "chlorthalidone"), ("21212", "clarithromycin"), ("29046", "lisinopril"))
_SENSITIVE_EVERY: Final = 25
_START: Final = datetime(2016, 1, 4, 9, tzinfo=UTC)
_SPAN: Final = 3900  # days up to autumn 2026
_LOINC: Final = "http://loinc.org"
_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem"
_IG: Final = "https://fhir-server.example/ig"

Resource = dict[str, Any]


def patients(rows: int) -> Iterator[tuple[str, int]]:
    """Yield patient ids with the sizes of their records, together about ``rows`` resources."""
    for patient in WATCHED_PATIENTS:
        yield patient, WATCHED_ROWS
    for number in range((rows - len(WATCHED_PATIENTS) * WATCHED_ROWS) // CROWD_ROWS):
        yield f"crowd-{number}", CROWD_ROWS


def record(patient: str, rows: int) -> Iterator[Resource]:
    """Yield one patient's record: a visit for every 25 other resources, four fifths of which are laboratory results."""
    random = Random(f"{VERSION} {patient}")
    yield _patient(patient)
    visits = rows // 25
    for number in range(visits):
        yield _encounter(patient, number, random)
    others = (rows - 1 - visits) // 5
    for number in range(others):
        visit = f"{patient}-visit-{number % visits}"
        yield _medication(patient, number, random) if number % 2 else _appointment(patient, number, random)
        for lab in range(4):
            yield observation(patient, f"{patient}-lab-{number * 4 + lab}", number * 4 + lab, visit, random)


def proxy(patient: str) -> tuple[Resource, Resource]:
    """Return the RelatedPerson and the Consent with which an adult shares everything except sensitive data."""
    person = f"proxy-of-{patient}"
    codings = [(_LOINC, "59284-0"), (f"{_IG}/CodeSystem/consent-kind", "proxy-adult"), (f"{_IG}/CodeSystem/proxy-level", "standard")]
    related = {
        "resourceType": "RelatedPerson",
        "id": person,
        "active": True,
        "patient": {"reference": f"Patient/{patient}"},
        "relationship": [_concept(f"{_TERMINOLOGY}/v3-RoleCode", "SIB", "sibling")],
        "name": [{"family": "Proxy", "given": [patient]}],
    }
    actor = {"role": _concept(f"{_TERMINOLOGY}/v3-RoleCode", "GRANTEE", "grantee"), "reference": {"reference": f"RelatedPerson/{person}"}}
    grant = {
        "resourceType": "Consent",
        "id": person,
        "status": "active",
        "scope": _concept(f"{_TERMINOLOGY}/consentscope", "patient-privacy", "Privacy Consent"),
        "category": [{"coding": [{"system": system, "code": code}]} for system, code in codings],
        "patient": {"reference": f"Patient/{patient}"},
        "dateTime": "2025-02-01",
        "performer": [{"reference": f"Patient/{patient}"}],
        "organization": [{"reference": "Organization/demo-health"}],
        "policy": [{"authority": "https://demo-health.example", "uri": f"{_IG}/policy/optum"}],
        "provision": {"provision": [{"type": "permit", "period": {"start": "2025-02-01"}, "actor": [actor]}]},
    }
    return related, grant


def observation(patient: str, id: str, number: int, visit: str, random: Random) -> Resource:
    """Return a laboratory result of about 1.4 kB; one in 25 is in a sensitive category."""
    code, display, unit = _SENSITIVE_LAB if number % _SENSITIVE_EVERY == _SENSITIVE_EVERY - 1 else LABS[number % len(LABS)]
    when = _moment(random)
    value = round(random.uniform(5, 250), 1)
    quantity = {"unit": unit, "system": "http://unitsofmeasure.org", "code": unit}
    return {
        "resourceType": "Observation",
        "id": id,
        "identifier": [{"system": "https://laboratory.demo-health.example/results", "value": f"R-{random.getrandbits(40):010x}"}],
        "status": "final",
        "category": [_concept(f"{_TERMINOLOGY}/observation-category", "laboratory", "Laboratory")],
        "code": {**_concept(_LOINC, code, display), "text": display},
        "subject": {"reference": f"Patient/{patient}"},
        "encounter": {"reference": f"Encounter/{visit}"},
        "effectiveDateTime": when.isoformat(),
        "issued": (when + timedelta(hours=5)).isoformat(timespec="milliseconds"),
        "performer": [
            {"reference": "Practitioner/dr-rivera", "display": "Dr. Rivera"},
            {"reference": "Organization/demo-health-laboratory", "display": "Demo Health Laboratory"},
        ],
        "valueQuantity": {"value": value, **quantity},
        "interpretation": [_concept(f"{_TERMINOLOGY}/v3-ObservationInterpretation", "N", "Normal")],
        "referenceRange": [{"low": {"value": 5, **quantity}, "high": {"value": 250, **quantity}, "text": f"5 to 250 {unit}"}],
    }


def _patient(id: str) -> Resource:
    return {
        "resourceType": "Patient",
        "id": id,
        "identifier": [{"use": "usual", "system": "https://demo-health.example/mrn", "value": f"MRN-{id}"}],
        "active": True,
        "name": [{"use": "official", "family": f"Family-{id}", "given": ["Robin", "Lee"]}],
        "telecom": [{"system": "phone", "value": "+1-555-0100", "use": "mobile"}],
        "gender": "female",
        "birthDate": "1974-05-06",
        "address": [{"use": "home", "line": ["1 Example Road"], "city": "Albany", "state": "NY", "postalCode": "12208", "country": "US"}],
        "generalPractitioner": [{"reference": "Practitioner/dr-rivera"}],
        "managingOrganization": {"reference": "Organization/demo-health"},
    }


def _encounter(patient: str, number: int, random: Random) -> Resource:
    when = _moment(random)
    return {
        "resourceType": "Encounter",
        "id": f"{patient}-visit-{number}",
        "status": "finished",
        "class": {"system": f"{_TERMINOLOGY}/v3-ActCode", "code": "AMB", "display": "ambulatory"},
        "serviceType": _concept(f"{_TERMINOLOGY}/service-type", "124", "General Practice"),
        "subject": {"reference": f"Patient/{patient}"},
        "participant": [{"individual": {"reference": "Practitioner/dr-rivera"}}],
        "period": {"start": when.isoformat(), "end": (when + timedelta(minutes=30)).isoformat()},
        "location": [{"location": {"reference": "Location/family-medicine-clinic"}}],
        "serviceProvider": {"reference": "Organization/demo-health"},
    }


def _medication(patient: str, number: int, random: Random) -> Resource:
    code, display = _DRUGS[number // 2 % len(_DRUGS)]
    return {
        "resourceType": "MedicationStatement",
        "id": f"{patient}-drug-{number}",
        "status": "active",
        "medicationCodeableConcept": {**_concept("http://www.nlm.nih.gov/research/umls/rxnorm", code, display), "text": display},
        "subject": {"reference": f"Patient/{patient}"},
        "effectivePeriod": {"start": _moment(random).date().isoformat()},
        "dosage": [{"text": "one tablet once a day", "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}}}],
    }


def _appointment(patient: str, number: int, random: Random) -> Resource:
    when = _moment(random)
    actors = (f"Patient/{patient}", "Practitioner/dr-rivera", "Location/family-medicine-clinic")
    return {
        "resourceType": "Appointment",
        "id": f"{patient}-appointment-{number}",
        "status": "fulfilled",
        "serviceType": [_concept(f"{_TERMINOLOGY}/service-type", "124", "General Practice")],
        "appointmentType": _concept(f"{_TERMINOLOGY}/v2-0276", "CHECKUP", "A routine check-up, such as an annual physical"),
        "description": "Check-up",
        "start": when.isoformat(),
        "end": (when + timedelta(minutes=30)).isoformat(),
        "participant": [{"actor": {"reference": actor}, "status": "accepted"} for actor in actors],
    }


def _concept(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _moment(random: Random) -> datetime:
    return _START + timedelta(days=random.randrange(_SPAN), minutes=random.randrange(480))


def text(resource: Resource) -> bytes:
    """Return the resource as compact JSON."""
    return json.dumps(resource, ensure_ascii=False, separators=(",", ":")).encode()
