"""Words count in every text that no code speaks for; text that cannot be read goes by the class of its document."""

from __future__ import annotations

from typing import Any

import pytest

from tests.consent.seen import PATIENT, attachment, code, label, loinc, row, rx, sct, shown

CHECKUP, HEMOGLOBIN = sct("185349003"), loinc("718-7")
DRUG = {"medicationCodeableConcept": rx("161")}
PDF = {"contentType": "application/pdf", "data": "JVBERi0xLjQK"}
LETTER = {"type": loinc("51852-2")}


def div(text: str) -> dict[str, str]:
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{text}</div>'}


def result(**more: Any) -> dict[str, Any]:
    return row("Observation", code=HEMOGLOBIN, status="final", category=[{"coding": [{"code": "laboratory"}]}], **more)


def report(**more: Any) -> dict[str, Any]:
    return row("DiagnosticReport", code=loinc("58410-2"), status="final", **more)


# (caller, resource with a sensitive text, the part that is removed ("": the resource), the same with an ordinary text)
TEXTS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("TP", row("Observation", code={**HEMOGLOBIN, "text": "Prueba de VIH"}), "", row("Observation", code={**HEMOGLOBIN, "text": "Hb"})),
    ("PS", row("Observation", code={**HEMOGLOBIN, "text": "Clamidia PCR"}), "", row("Observation", code={**HEMOGLOBIN, "text": "sangre"})),
    ("PS", result(valueString="Neisseria gonorrhoeae"), "", result(valueString="no growth")),
    ("TP", row("MedicationRequest", medicationCodeableConcept={**rx("161"), "text": "Truvada"}), "", row("MedicationRequest", **DRUG)),
    ("TP", row("MedicationStatement", **DRUG, dosage=[{"text": "PrEP for HIV, one daily"}]), "dosage.0",
     row("MedicationStatement", **DRUG, dosage=[{"text": "take with food"}])),
    ("PS", row("MedicationStatement", **DRUG, dosage=[{"patientInstruction": "for opioid withdrawal"}]), "dosage.0",
     row("MedicationStatement", **DRUG, dosage=[{"patientInstruction": "for fever"}])),
    ("TP", result(referenceRange=[{"appliesTo": [sct("77386006")], "text": "a"}]), "", result(referenceRange=[{"text": "a"}])),
    ("TP", result(identifier=[{"value": "STD CLINIC 2026-17"}]), "identifier.0", result(identifier=[{"value": "LAB 2026-17"}])),
    ("PS", result(performer=[{"display": "Planned Parenthood"}]), "performer.0", result(performer=[{"display": "General Hospital"}])),
    ("PS", row("Claim", item=[{"productOrService": CHECKUP}], supportingInfo=[{"valueString": "HIV test"}]), "supportingInfo.0.valueString",
     row("Claim", item=[{"productOrService": CHECKUP}], supportingInfo=[{"valueString": "checkup"}])),
    ("TP", row("ExplanationOfBenefit", item=[{"productOrService": CHECKUP}], disposition="Claim for HIV screening settled"), "disposition",
     row("ExplanationOfBenefit", item=[{"productOrService": CHECKUP}], disposition="Claim settled")),
    ("TP", row("CoverageEligibilityResponse", disposition="outpatient psychotherapy"), "disposition",
     row("CoverageEligibilityResponse", disposition="outpatient")),
    ("LB", row("ChargeItem", code=CHECKUP, overrideReason="confidential STD clinic"), "overrideReason",
     row("ChargeItem", code=CHECKUP, overrideReason="discount")),
    ("LB", row("Encounter", type=[CHECKUP], reasonCode=[code("https://x.example", "1", display="Visita por VIH")]), "",
     row("Encounter", type=[CHECKUP])),
    ("LB", row("Encounter", type=[CHECKUP], text=div("seen for HIV")), "text", row("Encounter", type=[CHECKUP], text=div("seen"))),
    ("WH", row("Encounter", type=[CHECKUP], text=div("seen for <b>H</b>IV")), "text", row("Encounter", type=[CHECKUP], text=div("ok"))),
    ("LB", result(extension=[{"url": "u", "valueString": "HIV clinic"}]), "extension.0",
     result(extension=[{"url": "u", "valueString": "a"}])),
    ("LB", result(_status={"extension": [{"url": "u", "valueMarkdown": "HIV clinic"}]}), "_status.extension.0",
     result(_status={"extension": [{"url": "u", "valueMarkdown": "a"}]})),
    ("LB", row("Media", note=[{"text": "HIV rash"}], status="completed"), "note.0", row("Media", note=[{"text": "rash"}])),
    ("LB", row("Composition", type=loinc("34133-9"), title="HIV summary"), "", row("Composition", type=loinc("34133-9"), title="Summary")),
]  # fmt: skip


@pytest.mark.parametrize(("caller", "resource", "part", "ordinary"), TEXTS, ids=lambda value: str(value)[:40])
def test_words_are_found_in_every_text(caller: str, resource: dict[str, Any], part: str, ordinary: dict[str, Any]) -> None:
    seen = shown(caller, resource)
    if part:
        assert seen is not None and part not in seen
        assert part in (shown("AS", resource) or ())
        assert part in (shown(caller, ordinary) or ()), "the control"
    else:
        assert seen is None
        assert shown(caller, ordinary) is not None, "the control"


@pytest.mark.parametrize("caller", ["LB", "WH", "PC ssm", "PF strict"])
def test_narrative_goes_whenever_a_part_of_the_resource_is_cut(caller: str) -> None:
    seen = shown(caller, result(text=div("Hemoglobin 13"), note=[{"text": "HIV status discussed"}]))
    assert seen is not None and "note.0" not in seen and "text" not in seen
    seen = shown(caller, result(text=div("Hemoglobin 13"), note=[{"text": "fasting"}]))
    assert seen is not None and {"note.0", "text"} <= seen
    assert "text" in (shown("AS", result(text=div("x"), note=[{"text": "HIV status discussed"}])) or ())


def test_what_stands_beside_a_sensitive_conclusion_goes_with_it() -> None:
    beside = {"presentedForm": [attachment("CBC")], "conclusionCode": [sct("195662009")], "note": [{"text": "see above"}]}
    seen = shown("LB", report(conclusion="started antiretroviral therapy", **beside))
    assert seen is not None and not seen & {"conclusion", "presentedForm", "conclusionCode", "note", "text"}
    assert {"conclusion", "presentedForm", "conclusionCode", "note"} <= (shown("LB", report(conclusion="normal", **beside)) or set())


def test_the_form_of_a_report_is_not_shown_to_a_standard_proxy() -> None:
    assert "presentedForm" not in (shown("PS", report(presentedForm=[attachment("normal")])) or ())
    assert "presentedForm" in (shown("AS", report(presentedForm=[attachment("normal")])) or ())


@pytest.mark.parametrize("caller", ["TP", "PS", "LB", "WH"])
@pytest.mark.parametrize("kind", ["text/plain", "text/html; charset=utf-8", "application/xml"])
def test_a_letter_is_withheld_by_the_words_of_its_body(caller: str, kind: str) -> None:
    def letter(text: str) -> dict[str, Any]:
        return row("DocumentReference", **LETTER, content=[{"attachment": attachment(text, kind)}])

    assert shown(caller, letter("<p>Your HIV test was reactive.</p>")) is None
    assert shown(caller, letter("<p>Your appointment is on Monday.</p>")) is not None


def test_text_that_cannot_be_read_goes_by_the_class_of_its_document() -> None:
    letter = row("DocumentReference", **LETTER, content=[{"attachment": PDF}])
    note = row("DocumentReference", type=loinc("11506-3"), content=[{"attachment": PDF}])
    assert label(letter).key.text() == "letter|UNREAD|" and label(note).key.text() == "note|UNREAD|"
    callers = ("TP", "PS", "LB", "WH", "AS", "PC ssm", "PF strict")
    assert {caller for caller in callers if shown(caller, letter) is not None} == {"TP", "PS", "AS", "PC ssm", "PF strict"}
    assert {caller for caller in callers if shown(caller, note) is not None} == {"AS"}
    assert shown("LB", row("DocumentReference", type=loinc("11506-3"), content=[{"attachment": attachment("healing well")}])) is not None


@pytest.mark.parametrize(
    ("attached", "labels"),
    [
        (PDF, {"UNREAD"}),
        ({"data": "AAAA"}, {"UNREAD"}),  # of no stated type
        ({"contentType": "text/plain", "data": "//79"}, {"UNREAD"}),  # not UTF-8
        ({"contentType": "text/plain", "data": "SElW"}, {"HIV"}),
        ({"contentType": "application/pdf", "url": "https://elsewhere.example/a.pdf"}, {"UNREAD"}),
        ({"contentType": "application/pdf", "url": "Binary/a"}, set()),  # a row with labels of its own
        ({"contentType": "application/pdf", "url": "Binary/a", "title": "HIV report"}, {"HIV"}),
        ({"contentType": "text/plain", "data": ""}, set()),
    ],
    ids=str,
)  # fmt: skip
def test_an_attachment_is_read_or_unread(attached: dict[str, str], labels: set[str]) -> None:
    assert label(row("DocumentReference", **LETTER, content=[{"attachment": attached}])).key.labels == labels


def test_a_binary_is_read_as_its_type_says() -> None:
    letter = {**row("DocumentReference", **LETTER, content=[{"attachment": {"url": "Binary/b"}}]), "id": "d"}
    binary = {"resourceType": "Binary", "id": "b", "securityContext": {"reference": "DocumentReference/d"}, **attachment("HIV reactive")}
    assert label(binary, letter).key.text() == "letter|HIV|"
    assert label({**binary, "contentType": "application/pdf"}, letter).key.text() == "letter|UNREAD|"


def test_messages_are_read() -> None:
    message = row("Communication", payload=[{"contentString": "Your HIV test"}, {"contentString": "hello"}, {"contentAttachment": PDF}])
    labels = {path[1]: key.labels for path, key in label(message).labeled_elements if path[0] == "payload"}
    assert labels == {0: {"HIV"}, 2: {"UNREAD"}}


def test_names_of_people_are_not_read() -> None:
    person = {"resourceType": "Patient", "id": "p", "name": [{"family": "Herpes", "text": "Ana Herpes"}], "telecom": [{"value": "hiv"}],
              "contact": [{"name": {"family": "Clap"}}], "photo": [{"contentType": "image/png", "data": "AAAA"}]}  # fmt: skip
    assert {key.labels for _, key in label(person).labeled_elements} <= {frozenset()}
    assert PATIENT == {"reference": "Patient/p"}
