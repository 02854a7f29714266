"""Practitioners, organizations, locations and medications that visible resources reference are readable in a patient launch."""

from __future__ import annotations

import re

import pytest

from tests.ehr.environment import Ehr

TYPES = ("Practitioner", "Organization", "Location", "Medication")
POINTER = re.compile(rf'"reference":\s*"((?:{"|".join(TYPES)}|PractitionerRole)/[A-Za-z0-9.-]+)"')
ROWS = ("Encounter", "Observation", "MedicationRequest", "MedicationStatement", "CareTeam", "Appointment", "Patient")


def reached(ehr: Ehr, token: str, patient: str) -> set[str]:
    """Return the references to ``TYPES`` and roles in the visible record, and in the resources that it references."""
    found: set[str] = set()
    for type in ROWS:
        param = "_id" if type == "Patient" else "patient"
        answer = ehr.served.get(token, f"{type}?{param}={patient}&_count=200")
        assert answer.status == 200, answer.body
        found |= set(POINTER.findall(answer.body.decode()))
    for name in sorted(found):
        found |= set(POINTER.findall(ehr.served.get(token, name).body.decode()))
    return found


@pytest.mark.parametrize(
    ("username", "patient"), [("adult", "adult"), ("parent-a", "teen"), ("newly-adult", "newly-adult"), ("clinician", "adult")]
)
def test_group_10_referenced_resources_are_readable_in_patient_launch(ehr: Ehr, username: str, patient: str) -> None:
    token = ehr.served.app_token(username, patient, "patient/*.rs")
    names = reached(ehr, token, patient)
    assert {"Practitioner", "Organization"} <= {name.partition("/")[0] for name in names}
    for name in sorted(names):
        answer = ehr.served.get(token, name)
        assert answer.status == 200, name
        assert f"{answer.json['resourceType']}/{answer.json['id']}" == name


def test_adult_record_references_all_four_types(ehr: Ehr) -> None:
    token = ehr.served.app_token("adult", "adult", "patient/*.rs")
    assert {name.partition("/")[0] for name in reached(ehr, token, "adult")} >= set(TYPES)


def test_referenced_resources_without_scope_return_403(ehr: Ehr) -> None:
    token = ehr.served.app_token("adult", "adult", "patient/Observation.rs patient/Patient.rs")
    assert ehr.served.get(token, "Patient/adult").status == 200
    assert ehr.served.get(token, "Practitioner/dr-rivera").status == 403


def test_medications_are_included_with_referencing_statements(ehr: Ehr) -> None:
    token = ehr.served.app_token("adult", "adult", "patient/*.rs")
    page = ehr.served.get(token, "MedicationStatement?patient=adult&_include=MedicationStatement:medication&_count=200")
    assert page.ids("MedicationStatement")
    named = set(re.findall(r'"reference":\s*"Medication/([^"]+)"', page.body.decode()))
    assert named and named == set(page.ids("Medication"))
