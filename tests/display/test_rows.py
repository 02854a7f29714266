"""Rows say what the resource says: by type and version of FHIR, with junk in every place."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from fhir_server.display import TYPES, build_row, is_withdrawn
from fhir_server.display.texts import MAX_TEXT, plain
from fhir_server.linking import queries
from fhir_server.linking.ownership import Owner, owner_of
from fhir_server.portal.record.sections import SECTIONS
from tests.display.row_samples import SAMPLES, Sample, observation

JUNK: list[Any] = [
    None,
    True,
    7,
    "text",
    [],
    {},
    [[{}]],
    {"coding": 3},
    {"coding": [None, {"display": 5}]},
    {"value": "x"},
    [{"text": ["y"]}],
    {"reference": {"reference": 5}},
    "9" * 2000,
]
PLACES = (
    *("code", "type", "medicationCodeableConcept", "medicationReference", "medication", "period", "participant", "valueQuantity", "status"),
    *("start", "dosage", "valueRange", "valueRatio", "valueBoolean", "valuePeriod", "valueDateTime", "component", "referenceRange"),
    *("interpretation", "dataAbsentReason", "clinicalStatus", "verificationStatus", "intent", "taken", "wasNotTaken", "note", "contained"),
    *("vaccineCode", "occurrenceDateTime", "performedAge", "protocolApplied", "dosage", "quantity", "doseQuantity", "docStatus", "content"),
    *("presentedForm", "conclusionCode", "isSubpotent", "primarySource", "performer", "date", "_status", "_code", "wasNotGiven"),
    *("abatementAge", "onsetRange", "abatementBoolean", "doNotPerform", "subject", "patient", "focus", "modifierExtension", "name"),
)


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample.name for sample in SAMPLES])
def test_row_says_what_the_resource_says(sample: Sample) -> None:
    row = build_row(json.loads(json.dumps(sample.resource), parse_float=Decimal))
    assert (row.what, row.standing, row.details) == (sample.what, sample.standing, sample.details)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:30])
def test_unexpected_remote_values_become_plain_text(type: str, junk: Any) -> None:
    resource = {"resourceType": type} | dict.fromkeys(PLACES, junk)
    shown = build_row(resource)
    assert shown.what
    assert shown.standing
    assert all(isinstance(text, str) for text in (shown.what, shown.standing, shown.when, *shown.details))
    assert is_withdrawn(resource) is False
    assert owner_of(resource, "adult", "https://north.example/fhir") is not Owner.LINKED


def test_every_type_that_pages_list_has_a_row() -> None:
    assert set(TYPES) >= set(queries.TYPES) | {listing.type for section in SECTIONS for listing in section.listings}


def test_quantity_keeps_its_decimal_digits() -> None:
    resource = observation(valueQuantity={"value": Decimal("4.10"), "unit": "mmol/L"})
    assert build_row(resource).details == ("4.10 mmol/L",)


def test_lists_and_texts_are_cut_and_say_so() -> None:
    members = [{"member": {"display": f"Dr. {i}"}} for i in range(9)]
    shown = build_row({"resourceType": "CareTeam", "name": "n" * 1000, "participant": members})
    assert len(shown.what) == MAX_TEXT
    assert shown.what.endswith("…")
    assert shown.details == ("Members: Dr. 0, Dr. 1, Dr. 2, Dr. 3, Dr. 4 and more",)


@pytest.mark.parametrize(
    "mark", [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x61C, 0xFEFF)], ids=ascii
)
def test_characters_that_turn_text_round_are_removed(mark: str) -> None:
    assert plain(f"{mark}4.1 mg{mark}") == "4.1 mg"
    assert build_row({"resourceType": "Condition", "code": {"text": f"a{mark}b"}}).what == "ab"


@pytest.mark.parametrize(
    ("text", "shown"), [("a\x00b\x1b[31m\u2028c", "a b [31m c"), ("\ud800x", "x"), ("می\u200cخواهم", "می\u200cخواهم")], ids=ascii
)
def test_control_characters_become_spaces_and_joiners_stay(text: str, shown: str) -> None:
    assert plain(text) == shown


BASE = "https://north.example/fhir"
INTERNAL = "http://internal.north.example:8080/r4"


@pytest.mark.parametrize(
    ("members", "full_url", "owner"),
    [
        ({"subject": {"reference": "Patient/p1"}}, "", Owner.LINKED),
        ({"patient": {"reference": "Patient/p1"}}, "", Owner.LINKED),
        ({"subject": {"reference": "Patient/p1/_history/3"}}, "", Owner.LINKED),
        ({"subject": {"reference": f"{BASE}/Patient/p1"}}, "", Owner.LINKED),
        ({"subject": {"reference": f"{INTERNAL}/Patient/p1"}}, f"{INTERNAL}/Observation/1", Owner.LINKED),
        ({"subject": {"reference": f"{INTERNAL}/Patient/p1"}}, "", Owner.OTHER),
        ({"subject": {"reference": f"{INTERNAL}/Patient/p1"}}, f"{BASE}/Observation/1", Owner.OTHER),
        ({"subject": {"reference": "Patient/p10"}}, "", Owner.OTHER),
        ({"subject": {"reference": "Patient/P1"}}, "", Owner.OTHER),
        ({"subject": {"reference": "Patient/\u202ep1"}}, "", Owner.OTHER),
        ({"subject": {"reference": "Group/p1"}}, "", Owner.OTHER),
        ({"subject": {"reference": "#p1"}}, "", Owner.OTHER),
        ({"subject": {"reference": "Patient/p1"}, "patient": {"reference": "Patient/p2"}}, "", Owner.OTHER),
        ({"subject": {"display": "Adele Adult"}}, "", Owner.UNKNOWN),
        ({"subject": {"identifier": {"value": "p1"}}}, "", Owner.UNKNOWN),
        ({}, "", Owner.UNKNOWN),
    ],
    ids=str,
)  # fmt: skip
def test_owner_is_who_the_subject_names(members: dict[str, Any], full_url: str, owner: Owner) -> None:
    assert owner_of(observation(**members), "p1", BASE, full_url) is owner


@pytest.mark.parametrize(
    ("patients", "owner"), [(["p1"], Owner.LINKED), (["p1", "p2"], Owner.OTHER), (["p2"], Owner.OTHER), ([], Owner.UNKNOWN)], ids=str
)
def test_owner_of_an_appointment_is_its_only_patient(patients: list[str], owner: Owner) -> None:
    actors = ["Practitioner/d1", *(f"Patient/{id}" for id in patients)]
    appointment = {"resourceType": "Appointment", "participant": [{"actor": {"reference": actor}} for actor in actors]}
    assert owner_of(appointment, "p1", BASE) is owner


@pytest.mark.parametrize(
    "members",
    [
        {"status": "entered-in-error"},
        {"verificationStatus": "entered-in-error"},
        {"verificationStatus": {"coding": [{"code": "entered-in-error"}]}},
        {"verificationStatus": {"coding": [{"code": "x"}, {"code": "entered-in-error"}]}},
        {"clinicalStatus": {"coding": [{"code": "entered-in-error"}]}},
        {"status": "Entered-In-Error"},
        {"docStatus": "entered-in-error"},
    ],
    ids=str,
)
def test_entered_in_error_is_found_in_every_shape(members: dict[str, Any]) -> None:
    assert is_withdrawn({"resourceType": "Condition"} | members)
    assert not is_withdrawn({"resourceType": "Condition", "status": "active"})
