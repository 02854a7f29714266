"""Contained resources lend and are masked as rows of their own, at any depth; references to a context that is not known."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.consent import decision
from fhir_server.consent.decision import Actor
from fhir_server.consent.policy import ActorKind, load
from fhir_server.consent.visibility_classes import VisibilityClass
from tests.consent.test_labeling import (
    IN_DOUBT,
    PATIENT,
    encounter,
    label,
    location,
    loinc,
    observation,
    parts,
    role,
    rx,
    sct,
)  # fmt: skip

Json = dict[str, Any]
PSYCHIATRY = {"resourceType": "PractitionerRole", "id": "r", "specialty": [sct("394587001")]}


def inside(*rows: Json, **more: Any) -> Json:
    return observation(loinc("718-7"), contained=list(rows), **more)


def visit(id: str = "e", **more: Any) -> Json:
    ambulatory = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"}
    return {"resourceType": "Encounter", "id": id, "status": "finished", "class": ambulatory, "type": [sct("185349003")], **more}


def order(id: str = "s", **more: Any) -> Json:
    return {"resourceType": "ServiceRequest", "id": id, "status": "active", "intent": "order", "subject": PATIENT,
            "code": loinc("718-7"), **more}  # fmt: skip


def ref(target: str) -> Json:
    return {"reference": target}


@pytest.mark.parametrize(
    "rows",
    [
        (visit(location=[{"location": ref("Location/l")}]),),
        (visit(location=[{"location": ref("#l")}]), location("l", type=role("PSY"))),
        (visit(location=[{"location": ref("#a")}]), location("a", partOf=ref("#b")), location("b", partOf=ref("Location/l"))),
        (visit(participant=[{"individual": ref("#r")}]), PSYCHIATRY),
        (visit(basedOn=[ref("#s")]), order(reasonReference=[ref("#c")]), {"resourceType": "Condition", "id": "c", "code": {"coding": [
            {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "F32.1"}]}}),
        (visit(basedOn=[ref("ServiceRequest/s")]),),
        (visit(partOf=ref("#f")), visit("f", partOf=ref("#e"), location=[{"location": ref("Location/l")}])),
    ],
)  # fmt: skip
def test_contained_context_lends_at_any_depth(rows: tuple[Json, ...]) -> None:
    lenders = (location("l", type=role("PSY")), order(meta={"security": [{"code": "MH"}]}))
    assert "MH" in label(inside(*rows, encounter=ref("#e")), *lenders).key.labels
    ordinary = (location("l", type=role("FMC")), order())
    found = label(inside(visit(location=[{"location": ref("Location/l")}]), encounter=ref("#e")), *ordinary)
    assert found.key.labels == frozenset() and "Location/l" in found.label_sources


def test_circle_of_contained_resources_shares_all_labels() -> None:
    circle = (
        visit("e", partOf=ref("#f")),
        visit("f", partOf=ref("#g")),
        visit("g", partOf=ref("#e"), meta={"security": [{"code": "HIV"}]}),
    )
    for start in "efg":
        assert "HIV" in label(inside(*circle, encounter=ref(f"#{start}"))).key.labels


def test_missing_contained_context_is_unresolved() -> None:
    assert label(inside(encounter=ref("#gone"))).key.labels == IN_DOUBT


def test_contained_member_labels_parts_and_not_the_report() -> None:
    report = {"resourceType": "DiagnosticReport", "id": "r", "status": "final", "subject": PATIENT, "code": loinc("58410-2"),
              "contained": [observation(loinc("718-7"), id="a"), observation(loinc("20447-9"), id="b")],
              "result": [ref("#a"), ref("#b")], "conclusion": "see results"}  # fmt: skip
    found = parts(label(report))
    assert label(report).key.text() == "lab||"
    for path in (("contained", 1), ("result", 1), ("conclusion",)):
        assert "HIV" in found[path], path
    unnamed = {**report, "result": [ref("#a")]}
    assert label(unnamed).key.labels == {"HIV"}


def test_contained_role_is_masked_with_its_reference() -> None:
    found = label(inside(PSYCHIATRY, performer=[ref("#r")]))
    assert found.key.text() == "lab||"
    assert parts(found) == {("contained", 0): "lab|MH|", ("performer", 0): "lab|MH|"}


def test_contained_resource_keeps_its_own_data_class() -> None:
    policy = load("optum")
    found = parts(label(inside(visit(reasonCode=[{"text": "cough"}]), encounter=ref("#e"))))
    assert found["contained", 0] == found["encounter",] == "lab||contained@visit"
    assert found["contained", 0, "reasonCode"] == "lab||contained+reasonCode@visit.reasonCode"
    parent, clinician = Actor(ActorKind.TEEN_PROXY), Actor(ActorKind.CLINICIAN)
    for key, seen in ((found["contained", 0], True), (found["contained", 0, "reasonCode"], False), ("lab||contained@condition", False),
                      ("lab||contained@message", False), ("visit||contained@lab", False)):  # fmt: skip
        assert decision.permits(policy, parent, VisibilityClass.parse(key)) is seen, key
        assert decision.permits(policy, clinician, VisibilityClass.parse(key)), key


def test_contained_row_about_another_patient_is_mixed() -> None:
    other = order(subject=ref("Patient/q"))
    assert "MIXED" in parts(label(inside(other, basedOn=[ref("#s")])))["contained", 0]


def test_contained_note_with_a_keyword_is_a_part() -> None:
    found = parts(label(inside(order(note=[{"text": "HIV status discussed"}]), basedOn=[ref("#s")])))
    assert "HIV" in found["contained", 0, "note", 0]


def test_row_of_three_patients_is_mixed() -> None:
    subjects = [ref(f"Patient/{id}") for id in "pqr"]
    found = label({"resourceType": "Account", "id": "a", "status": "active", "subject": subjects})
    assert found.key.labels == {"MIXED"} and found.patients == ("p", "q", "r")


def test_visit_takes_the_specialty_of_whoever_takes_part() -> None:
    doctor = {"resourceType": "Practitioner", "id": "d", "qualification": [{"code": sct("394587001")}]}
    assert label(encounter(participant=[{"individual": ref("Practitioner/d")}]), doctor).key.labels == {"MH"}
    assert label(encounter(participant=[{"individual": ref("Practitioner/gone")}])).key.labels == frozenset()
    assert label(encounter(participant=[{"individual": {"identifier": {"value": "NPI"}}}])).key.labels == frozenset()
    request = {"resourceType": "MedicationRequest", "id": "m", "status": "active", "intent": "order", "subject": PATIENT,
               "medicationCodeableConcept": rx("161"), "requester": ref("Practitioner/d")}  # fmt: skip
    assert label(request, doctor).key.labels == {"MH"}
    assert parts(label(observation(loinc("718-7"), performer=[ref("Practitioner/d")]), doctor)) == {("performer", 0): "lab|MH|"}


UNREADABLE = [ref(text) for text in ("Location?identifier=urn:bug:loc|1", "urn:uuid:x", "/Location/l", "Location/gone")]


@pytest.mark.parametrize("place", [{"identifier": {"value": "PSY-UNIT-4"}}, *UNREADABLE])
def test_visit_at_a_place_that_cannot_be_read_is_unresolved(place: Json) -> None:
    assert label(encounter(location=[{"location": place}]), location("l", type=role("PSY"))).key.labels == IN_DOUBT
    assert label(encounter(serviceProvider={"identifier": {"value": "PSY-UNIT-4"}})).key.labels == IN_DOUBT


def test_doubt_of_a_visit_is_inherited_and_that_of_an_order_is_not() -> None:
    local = {"coding": [{"system": "http://local.example", "code": "X"}]}
    visited, ordered = encounter(type=[local]), order(code=local)
    assert label(observation(loinc("718-7"), encounter=ref("Encounter/e")), visited).key.labels == IN_DOUBT
    assert label(observation(loinc("718-7"), basedOn=[ref("ServiceRequest/s")]), ordered).key.labels == frozenset()
    unknown = order(encounter=ref("Encounter/gone"))
    assert label(observation(loinc("718-7"), basedOn=[ref("ServiceRequest/s")]), unknown).key.labels == IN_DOUBT


def test_visit_without_a_code_lends_no_doubt_from_a_known_department() -> None:
    bare = {name: value for name, value in encounter().items() if name != "type"}
    at_clinic = {**bare, "location": [{"location": ref("Location/l")}]}
    result = observation(loinc("718-7"), encounter=ref("Encounter/e"))
    assert label(result, location("l", type=role("FMC")), at_clinic).key.labels == frozenset()
    assert label(result, location("l", name="Building 7"), at_clinic).key.labels == IN_DOUBT
    assert label(result, bare).key.labels == IN_DOUBT
