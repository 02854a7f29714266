"""What no list knows is withheld from whom policy says, in every type; what a list knows as ordinary is shown."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.consent.code_systems import CPT, HCPCS, NDC, PLACE, REVENUE, X12
from tests.consent.seen import PATIENT, code, label, loinc, row, rx, sct, shown

LOCAL = code("https://clinic.example/codes", "A17")
CHECKUP, HEMOGLOBIN = sct("185349003"), loinc("718-7")
CONFIDENTIAL = ("TP", "PS", "LB", "WH")
_V3 = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


def claim(type: str, *lines: dict[str, Any], **more: Any) -> dict[str, Any]:
    return row(type, item=[{"sequence": 1, "productOrService": CHECKUP}, *lines], total={"value": 9} if type == "Claim" else [], **more)


# CPT: chlamydia test, HIV test, abortion, psychotherapy.  HCPCS: addiction assessment.  Revenue code: behavioral health.  Place 51:
# psychiatric facility.
LINES = [
    {"productOrService": code(CPT, "87491")}, {"productOrService": code(CPT, "87389")}, {"productOrService": code(CPT, "59840")},
    {"productOrService": code(CPT, "90837")}, {"productOrService": code(HCPCS, "H0001")}, {"productOrService": LOCAL},
    {"productOrService": {"text": "Office visit"}},
    {"productOrService": CHECKUP, "revenue": code(REVENUE, "0905")},
    {"productOrService": CHECKUP, "locationCodeableConcept": code(PLACE, "51")},
    {"productOrService": CHECKUP, "modifier": [LOCAL]},
    {"productOrService": CHECKUP, "detail": [{"productOrService": code(CPT, "87389")}]},
]  # fmt: skip


@pytest.mark.parametrize("caller", CONFIDENTIAL)
@pytest.mark.parametrize("line", LINES, ids=str)
@pytest.mark.parametrize("type", ["Claim", "ExplanationOfBenefit"])
def test_a_bill_loses_a_line_that_is_not_known_ordinary(caller: str, line: dict[str, Any], type: str) -> None:
    seen = shown(caller, claim(type, line))
    assert seen is not None and "item.0" in seen and "item.1" not in seen and "total" not in seen
    assert {"item.0", "item.1", "total"} <= (shown(caller, claim(type, {"productOrService": CHECKUP})) or set())


@pytest.mark.parametrize("caller", CONFIDENTIAL)
@pytest.mark.parametrize("line", LINES[:6], ids=str)
def test_a_bill_without_an_ordinary_line_is_withheld(caller: str, line: dict[str, Any]) -> None:
    assert shown(caller, row("Claim", item=[line])) is None
    assert shown(caller, row("Invoice", lineItem=[{"chargeItemCodeableConcept": line["productOrService"]}])) is None
    assert shown(caller, row("ChargeItem", code=line["productOrService"])) is None
    assert shown(caller, row("ClaimResponse", addItem=[line])) is None
    assert shown(caller, row("ChargeItem", code=CHECKUP)) is not None
    assert shown(caller, row("Invoice", lineItem=[{"chargeItemCodeableConcept": CHECKUP}])) is not None


def test_an_invoice_line_is_known_if_its_charge_is() -> None:
    invoice = row("Invoice", lineItem=[{"chargeItemReference": {"reference": f"ChargeItem/{id}"}} for id in ("a", "b", "gone")])
    found = shown("TP", invoice, row("ChargeItem", code=CHECKUP) | {"id": "a"}, row("ChargeItem", code=LOCAL) | {"id": "b"})
    assert found is not None and {path for path in found if path.startswith("lineItem.")} >= {"lineItem.0"}
    assert not found & {"lineItem.1", "lineItem.2"}


# Each type: (elements that are known to be ordinary, the same with something that no list knows).
PHARYNGITIS = sct("195662009")  # acute viral pharyngitis, a listed problem
KINDS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("CoverageEligibilityRequest", {"item": [{"productOrService": CHECKUP}]}, {"item": [{"category": code(X12, "A4")}]}),
    ("CoverageEligibilityRequest", {"item": [{"productOrService": CHECKUP}]}, {"item": [{"productOrService": code(CPT, "90837")}]}),
    ("CoverageEligibilityResponse", {"insurance": [{"item": [{"productOrService": CHECKUP}]}]},
     {"insurance": [{"item": [{"category": code(X12, "A4")}]}]}),
    ("Specimen", {}, {"type": {"text": "urethral swab"}}),
    ("Specimen", {}, {"type": LOCAL}),
    ("Specimen", {}, {}),
    ("ImagingStudy", {}, {"procedureCode": [{"text": "OB US 12 wk"}]}),
    ("ImagingStudy", {}, {"procedureCode": [code("http://radlex.org", "RPID1920", display="Nuchal translucency")]}),
    ("MolecularSequence", {}, {}),
    ("EpisodeOfCare", {"type": [CHECKUP]}, {"type": [LOCAL]}),
    ("EpisodeOfCare", {"type": [CHECKUP]}, {}),
    ("AllergyIntolerance", {"code": sct("91934008")}, {"code": LOCAL}),
    ("AllergyIntolerance", {"code": sct("91934008")}, {"code": {"text": "Truvadda"}}),
    ("Observation", {"code": HEMOGLOBIN, "category": [{"coding": [{"code": "laboratory"}]}]}, {"code": LOCAL}),
    ("DiagnosticReport", {"code": loinc("58410-2")}, {"code": {"text": "CBC"}}),
    ("Encounter", {"type": [CHECKUP]}, {"type": [LOCAL]}),
    ("MedicationRequest", {"medicationCodeableConcept": rx("161")}, {"medicationCodeableConcept": code(NDC, "0")}),
]  # fmt: skip


@pytest.mark.parametrize("caller", CONFIDENTIAL)
@pytest.mark.parametrize(("type", "known", "unknown"), KINDS, ids=str)
def test_a_resource_that_is_not_known_ordinary_is_withheld(caller: str, type: str, known: dict[str, Any], unknown: dict[str, Any]) -> None:
    assert shown(caller, row(type, **unknown)) is None
    assert shown("AS", row(type, **unknown)) is not None
    if known:
        assert shown(caller, row(type, **known)) is not None


@pytest.mark.parametrize(
    ("type", "unknown"),
    [
        ("Procedure", {"code": code(CPT, "59840")}), ("Procedure", {"code": LOCAL}), ("Procedure", {}),
        ("CarePlan", {"category": [LOCAL]}), ("CarePlan", {}), ("Device", {"type": LOCAL}), ("Device", {}),
        ("ServiceRequest", {"code": LOCAL, "category": [sct("387713003")]}), ("Goal", {"description": {"text": "stay clean"}}),
        ("FamilyMemberHistory", {"condition": [{"code": LOCAL}]}), ("Condition", {"code": LOCAL}),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("caller", ["PS", "LB", "WH", "PC ssm", "PF strict"])
def test_unknown_clinical_content_is_withheld_from_proxies_and_apps(caller: str, type: str, unknown: dict[str, Any]) -> None:
    assert shown(caller, row(type, **unknown)) is None


@pytest.mark.parametrize("caller", ["PS", "LB", "WH", "PC ssm", "PF strict"])
def test_known_ordinary_clinical_content_is_shown(caller: str) -> None:
    plan = [sct("698360004"), code("http://hl7.org/fhir/us/core/CodeSystem/careplan-category", "assess-plan")]
    ordinary = (
        row("Procedure", code=sct("430193006")), row("CarePlan", category=plan),
        row("Condition", code=PHARYNGITIS), row("FamilyMemberHistory", condition=[{"code": PHARYNGITIS}]),
        row("ServiceRequest", code=HEMOGLOBIN),
    )  # fmt: skip
    for resource in ordinary:
        assert shown(caller, resource) is not None, resource


def test_parts_that_no_list_knows_are_removed_and_the_rest_is_shown() -> None:
    """One unknown code in a detail does not hide the row."""
    details = [
        ("TP", row("CareTeam", participant=[{"role": [sct("80584001")]}, {"member": PATIENT}]), "participant.0", "participant.1"),
        ("TP", row("CareTeam", category=[LOCAL], status="active"), "category.0", "status"),
        ("PS", row("Task", code=LOCAL, status="draft"), "code", "status"),
        ("PS", row("Task", statusReason=LOCAL, status="draft"), "statusReason", "status"),
        ("PS", row("Task", performerType=[LOCAL], status="draft"), "performerType.0", "status"),
        ("PS", row("Task", instantiatesUri="https://x.example/hiv-screening", status="draft"), "instantiatesUri", "status"),
        ("LB", row("Media", bodySite={"text": "genital"}, status="completed"), "bodySite", "status"),
        ("PS", row("Encounter", type=[CHECKUP], reasonCode=[{**LOCAL, "text": "Visita"}], status="finished"), "reasonCode.0", "status"),
        ("TP", row("Encounter", type=[CHECKUP], hospitalization={"dischargeDisposition": LOCAL, "preAdmissionIdentifier": {"value": "1"}}),
         "hospitalization.dischargeDisposition", "hospitalization.preAdmissionIdentifier"),
        ("TP", row("Appointment", appointmentType=code("http://terminology.hl7.org/CodeSystem/v2-0276", "ROUTINE"), serviceCategory=[LOCAL],
                   participant=[{"actor": PATIENT, "status": "accepted"}]), "serviceCategory.0", "participant.0"),
        ("LB", row("Observation", code=HEMOGLOBIN, valueCodeableConcept=LOCAL, status="final"), "valueCodeableConcept", "status"),
        ("LB", row("Observation", code=HEMOGLOBIN, status="final", extension=[{"url": "u", "valueCodeableConcept": LOCAL}]),
         "extension.0", "status"),
    ]  # fmt: skip
    for caller, resource, hidden, kept in details:
        seen = shown(caller, resource)
        assert seen is not None and hidden not in seen and kept in seen, resource
        assert hidden in (shown("AS", resource) or set())


def test_a_required_or_modifying_part_takes_the_resource_along() -> None:
    visit = row("Encounter", type=[CHECKUP], **{"class": {"system": "https://clinic.example/class", "code": "PSY"}})
    assert shown("TP", visit) is None
    assert shown("TP", {**visit, "class": {"system": _V3, "code": "AMB"}}) is not None
    result = row("Observation", code=HEMOGLOBIN, modifierExtension=[{"url": "u", "valueCodeableConcept": LOCAL}])
    assert shown("TP", result) is None


def test_a_contained_result_of_an_unknown_kind_is_withheld() -> None:
    hidden = {"resourceType": "Observation", "id": "c", "status": "final", "subject": PATIENT, "valueString": "reactive 1:32",
              "code": code("https://clinic.example/lab", "X", display="Treponema ab")}  # fmt: skip
    report = row("DiagnosticReport", code=loinc("58410-2"), result=[{"reference": "#c"}], contained=[hidden])
    for caller in CONFIDENTIAL:
        seen = shown(caller, report)
        assert seen is None or not {path for path in seen if path.startswith(("contained.", "result."))}
    ordinary = {**hidden, "code": HEMOGLOBIN, "valueString": "7.1", "category": [{"coding": [{"code": "laboratory"}]}]}
    assert {"contained.0.valueString", "result.0"} <= (shown("TP", {**report, "contained": [ordinary]}) or set())


@pytest.mark.parametrize("caller", ["LB", "WH"])
def test_answers_surveys_and_notes_are_withheld_unless_known(caller: str) -> None:
    answers = row("QuestionnaireResponse", questionnaire="https://x.example/q", item=[{"linkId": "1", "text": "Tested positive in May"}])
    survey = row("Observation", code=LOCAL, category=[{"coding": [{"code": "survey"}]}])
    note = row("DocumentReference", type=LOCAL, content=[{"attachment": {"title": "note"}}])
    for resource in (answers, survey, note, row("Goal", description={"text": "x"}), row("ClinicalImpression"), row("RiskAssessment")):
        assert shown(caller, resource) is None, resource
        assert shown("AS", resource) is not None


def test_sections_of_a_document_are_withheld_one_by_one() -> None:
    document = row("Composition", type=loinc("34133-9"), section=[
        {"title": "Results", "code": loinc("30954-2")},
        {"title": "Social", "code": LOCAL, "section": [{"title": "inner", "code": HEMOGLOBIN}]},
        {"title": "Labs", "code": HEMOGLOBIN, "text": {"div": "<div>Hemoglobin 13</div>"}}, {"title": "no code"},
    ])  # fmt: skip
    labels = {path: key.labels for path, key in label(document).labeled_elements}
    assert "UNCLASSIFIED" in labels["section", 1] and "UNCLASSIFIED" in labels["section", 3]
    assert ("section", 2) not in labels
