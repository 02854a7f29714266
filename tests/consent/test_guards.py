"""What a hidden row hides in others: its summaries, the objects that need it, and the rows that mean nothing without it."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.consent.labeling import LabelingResult
from fhir_server.consent.policy import load
from fhir_server.jsontext import Path
from fhir_server.resources import catalog, summary, validate
from tests.consent.test_labeling import PATIENT, encounter, label, loinc, observation, parts

TEXT = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}
HIV = {"reference": "Observation/hiv"}
RESULT = {"reference": "Observation/ok"}


def guards(found: LabelingResult) -> dict[Path, set[str]]:
    paths: dict[Path, set[str]] = {}
    for reference in found.guarded_references:
        paths.setdefault(reference.path, set()).add(reference.target)
    return paths


def report(**more: Any) -> dict[str, Any]:
    return {"resourceType": "DiagnosticReport", "id": "r", "status": "final", "code": loinc("24323-8"), "subject": PATIENT, **more}


def invoice(*lines: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "Invoice", "id": "i", "status": "issued", "subject": PATIENT, "lineItem": [*lines], **more}


def claim(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Claim", "id": "c", "status": "active", "patient": PATIENT, "use": "claim", "created": "2026-01-01", **more}


COMPOSITION = {"resourceType": "Composition", "id": "c", "status": "final", "subject": PATIENT, "title": "Summary", "text": TEXT}
EURO = {"value": 1, "currency": "EUR"}


@pytest.mark.parametrize(
    ("resource", "summaries"),
    [
        (report(result=[RESULT], conclusion="high", conclusionCode=[{"text": "x"}], presentedForm=[{"title": "x"}], text=TEXT),
         {("conclusion",), ("conclusionCode",), ("presentedForm",), ("text",)}),
        (observation(loinc("24323-8"), hasMember=[RESULT], interpretation=[{"text": "H"}], note=[{"text": "x"}]),
         {("interpretation",), ("note",)}),
        (encounter(reasonReference=[RESULT], text=TEXT), {("text",)}),
        (invoice({"chargeItemReference": RESULT}, totalNet=EURO, totalGross=EURO, totalPriceComponent=[{"type": "base"}]),
         {("totalNet",), ("totalGross",), ("totalPriceComponent",), ("lineItem", 0)}),
        (claim(diagnosis=[{"sequence": 1, "diagnosisReference": RESULT}], item=[{"sequence": 1, "diagnosisSequence": [1]}, {"sequence": 2}],
               total=EURO), {("diagnosis", 0), ("item", 0), ("total",)}),
        ({"resourceType": "ExplanationOfBenefit", "id": "e", "patient": PATIENT,
          "procedure": [{"sequence": 1, "procedureReference": RESULT}], "total": [{"amount": EURO}], "benefitBalance": [{}],
          "payment": {"amount": EURO}},
         {("procedure", 0), ("total",), ("benefitBalance",), ("payment",)}),
        ({"resourceType": "AuditEvent", "id": "a", "entity": [{"what": PATIENT}, {"what": RESULT, "name": "HIV screen", "query": "eA=="}]},
         {("entity", 1)}),
        ({"resourceType": "Communication", "id": "m", "status": "completed", "subject": PATIENT, "about": [RESULT],
          "payload": [{"contentString": "high"}]}, {("about", 0), ("payload",)}),
        ({"resourceType": "List", "id": "l", "status": "current", "mode": "working", "subject": PATIENT, "text": TEXT,
          "entry": [{"item": RESULT, "flag": {"text": "new"}}]}, {("entry", 0), ("text",)}),
        ({**COMPOSITION, "section": [{"text": TEXT, "entry": [{"reference": "Observation/ok"}], "section": [{"text": TEXT}]}]},
         {("section", 0, "text"), ("section", 0, "entry", 0), ("text",)}),
    ],
)  # fmt: skip
def test_summary_is_guarded_by_every_member(resource: dict[str, Any], summaries: set[Path]) -> None:
    found = guards(label(resource, observation(loinc("718-7"), id="ok")))
    assert all("Observation/ok" in found.get(path, ()) for path in summaries), found


def test_narrative_goes_with_any_reference_or_labeled_part() -> None:
    found = label(observation(loinc("718-7"), encounter={"reference": "Encounter/e"}, text=TEXT), encounter())
    assert guards(found)["text",] == {"Encounter/e"}
    found = label(observation(loinc("718-7"), note=[{"text": "HIV status discussed"}], text=TEXT))
    assert parts(found)["text",] == "lab|HIV|text" and parts(found)["note", 0] == "lab|HIV|note"


@pytest.mark.parametrize("type", ["DocumentReference", "Provenance"])
def test_row_takes_over_what_it_cannot_be_valid_without(type: str) -> None:
    other = {"reference": "Patient/other"}
    binary = {"resourceType": "Binary", "id": "b", "contentType": "text/plain", "securityContext": other}
    content = {"status": "current", "subject": PATIENT, "content": [{"attachment": {"url": "Binary/b"}}]}
    agents = {"target": [PATIENT], "recorded": "2026-01-01T00:00:00Z", "agent": [{"who": other}]}
    resource = {"resourceType": type, "id": "x", **(content if type == "DocumentReference" else agents)}
    found = label(resource, binary)
    assert found.patients == ("other", "p") and "MIXED" in found.key.labels


def test_row_depends_on_what_it_answers() -> None:
    appointment = {"resourceType": "Appointment", "id": "a", "status": "booked", "participant": [{"actor": PATIENT, "status": "accepted"}],
                   "appointmentType": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0276", "code": "ROUTINE"}]},
                   "meta": {"security": [{"code": "PHY"}]}}  # fmt: skip
    answer = {"resourceType": "AppointmentResponse", "id": "r", "appointment": {"reference": "Appointment/a"}, "actor": PATIENT,
              "participantStatus": "accepted", "start": "2026-01-01T00:00:00Z"}  # fmt: skip
    found = label(answer, appointment)
    assert found.depends_on == ("Appointment/a",) and "PHYHOLD" in found.key.labels and not guards(found)
    assert label(answer).key.element == "@internal/Appointment"


def test_row_of_another_data_class_needs_that_class_too() -> None:
    provenance = {"resourceType": "Provenance", "id": "x", "target": [RESULT], "recorded": "2026-01-01T00:00:00Z",
                  "agent": [{"who": {"reference": "Practitioner/d"}}]}  # fmt: skip
    assert label(provenance, observation(loinc("718-7"), id="ok")).key.text() == "provenance||@lab/Observation"


def test_reference_without_a_literal_is_an_unclassified_part() -> None:
    found = label(report(result=[{"identifier": {"value": "ACC-1"}}, RESULT], conclusion="x"), observation(loinc("718-7"), id="ok"))
    assert parts(found)["result", 0] == parts(found)["conclusion",] == "lab|UNCLASSIFIED|" and ("result", 1) not in parts(found)
    assert not parts(label(observation(loinc("718-7"), performer=[{"display": "Dr Doe"}], subject={**PATIENT, "display": "Pat"})))


def test_account_balance_is_withheld_where_charges_may_be_hidden() -> None:
    url = "https://fhir-server.example/ig/StructureDefinition/account-balance"
    account = {"resourceType": "Account", "id": "a", "status": "active", "subject": [PATIENT],
               "extension": [{"url": url, "valueMoney": EURO}]}  # fmt: skip
    assert parts(label(account))["extension", 0] == "billing|MC,UNCLASSIFIED|"


@pytest.mark.parametrize(
    ("resource", "hidden"),
    [
        (observation(loinc("718-7"), extension=[{"url": "http://x", "valueReference": HIV}]), ("extension", 0)),
        (observation(loinc("718-7"), note=[{"text": "HIV status", "time": "2026-01-01"}]), ("note", 0)),
        (observation(loinc("718-7"), referenceRange=[{"text": "HIV negative"}]), ("referenceRange", 0)),
        ({"resourceType": "Condition", "id": "c", "subject": PATIENT, "stage": [{"type": {"text": "x"}, "assessment": [HIV]}]},
         ("stage", 0)),
        ({"resourceType": "RequestGroup", "id": "g", "action": [{"title": "x", "resource": HIV}]}, ("action", 0)),
        (invoice({"chargeItemReference": HIV, "priceComponent": [{"type": "base"}]}), ("lineItem", 0)),
    ],
)  # fmt: skip
def test_object_is_removed_with_what_it_needs(resource: dict[str, Any], hidden: Path) -> None:
    found = label(resource, observation(loinc("20447-9"), id="hiv"))
    assert hidden in {*guards(found), *parts(found)}
    assert not [path for path in (*guards(found), *parts(found)) if len(path) > len(hidden) and path[: len(hidden)] == hidden]


def test_contained_row_and_its_references_go_together() -> None:
    inner = observation(loinc("718-7"), id="in", note=[{"text": "fine"}])
    found = label(report(contained=[inner], result=[{"reference": "#in"}, HIV]), observation(loinc("20447-9"), id="hiv"))
    assert guards(found)["contained", 0] == guards(found)["result", 0] == {"Observation/hiv"}
    drug = {"resourceType": "Medication", "id": "m", "code": {"text": "x"}}
    request = {"resourceType": "MedicationRequest", "id": "m", "subject": PATIENT, "contained": [drug],
               "medicationReference": {"reference": "#m"}, "supportingInformation": [HIV]}  # fmt: skip
    found = label(request, observation(loinc("20447-9"), id="hiv"))
    assert set(guards(found)) == {("supportingInformation", 0)} and not found.depends_on


@pytest.mark.parametrize("name", ["optum", "ssm", "strict"])
def test_no_policy_removes_what_r4_requires_and_all_remove_the_narrative(name: str) -> None:
    policy = load(name)
    for data, removed in policy.redactions.items():
        for type, declared in catalog().items():
            if data in {declared.data_class, *declared.by_category.values(), *declared.by_status.values()}:
                assert not removed & summary.required(type), (data, type)
    for (actor, data), rules in policy.by_actor.items():
        for level in ("", "standard", "scheduling", "billing"):
            redactions = [rule.elements for rule in rules if rule.effect == "redact" and (not rule.levels or level in rule.levels)]
            assert not redactions or "text" in frozenset().union(*redactions), (actor, data, level)


def test_what_remains_is_valid_whatever_is_hidden() -> None:
    example = {**report(), "result": [HIV, RESULT], "text": TEXT, "extension": [{"url": "http://x", "valueReference": RESULT}],
               "media": [{"comment": "x", "link": {"reference": "Media/m"}}], "conclusion": "x"}  # fmt: skip
    assert validate.check("DiagnosticReport", example) == ()
    found = label(example, observation(loinc("20447-9"), id="hiv"), observation(loinc("718-7"), id="ok"))
    for hidden in ({"Observation/hiv"}, {"Observation/ok"}, {"Media/m"}, {"Observation/hiv", "Observation/ok", "Media/m"}):
        removed = [path for path, targets in guards(found).items() if targets & hidden]
        left = jsontext.parse(jsontext.remove_paths(jsontext.dumps(example), removed))
        assert validate.check("DiagnosticReport", left) == () and "conclusion" not in left


def test_url_of_a_resource_is_its_name_and_no_reference() -> None:
    questionnaire = {"resourceType": "Questionnaire", "id": "q", "status": "active"}
    for url in ("Patient/other", "Binary/b"):
        assert label({**questionnaire, "url": url}) == label(questionnaire)
    related = [{"type": "documentation", "url": "Binary/b"}]
    assert guards(label({"resourceType": "Library", "id": "l", "status": "active", "type": {"text": "x"}, "relatedArtifact": related}))
