"""Every single defect in a valid resource is found at its place."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from fhir_server.resources.validate import check
from tests.resources.examples import DIV, concept, example, hl7, to

REMOVE = object()
Step = str | int
Case = tuple[str, str, Any, str, str]

# type, where to put it (dots; a number indexes an array), what to put there, issue code, expression
CASES: list[Case] = [
    # unknown elements, at any depth
    ("Patient", "nickname", "x", "structure", "Patient"),
    ("Patient", "name.0.surname", "x", "structure", "Patient.name[0]"),
    ("Observation", "component.1.value", 3, "structure", "Observation.component[1]"),
    ("Observation", "code.coding.0.codes", "x", "structure", "Observation.code.coding[0]"),
    ("Observation", "valueAddress", {"text": "x"}, "structure", "Observation"),
    ("Observation", "_code", {"id": "a"}, "structure", "Observation"),
    ("Patient", "_id", {"id": "a"}, "structure", "Patient"),
    ("Observation", "extension.0._url", {"id": "a"}, "structure", "Observation.extension[0]"),
    ("Observation", "code.resourceType", "CodeableConcept", "structure", "Observation.code"),
    ("MedicationStatement", "dosage.0.timing.repeat.times", 2, "structure", "MedicationStatement.dosage[0].timing.repeat"),
    ("Bundle", "entry.0.resource.nickname", "x", "structure", "Bundle.entry[0].resource"),
    ("Observation", "contained.0.nickname", "x", "structure", "Observation.contained[0]"),
    # cardinality
    ("Observation", "status", REMOVE, "required", "Observation.status"),
    ("Observation", "code", REMOVE, "required", "Observation.code"),
    ("Observation", "component.0.code", REMOVE, "required", "Observation.component[0].code"),
    ("Observation", "text.div", REMOVE, "required", "Observation.text.div"),
    ("Observation", "extension.0.url", REMOVE, "required", "Observation.extension[0].url"),
    ("MedicationStatement", "medicationCodeableConcept", REMOVE, "required", "MedicationStatement.medication"),
    ("Patient", "link.0.other", REMOVE, "required", "Patient.link[0].other"),
    ("Bundle", "entry.1.request.method", REMOVE, "required", "Bundle.entry[1].request.method"),
    ("Patient", "gender", ["male"], "structure", "Patient.gender"),
    ("Patient", "name", {"family": "x"}, "structure", "Patient.name"),
    ("Observation", "code", [concept("1")], "structure", "Observation.code"),
    ("Observation", "status", None, "structure", "Observation.status"),
    # empty things and nulls
    ("Patient", "name", [], "structure", "Patient.name"),
    ("Patient", "name.0.given", [], "structure", "Patient.name[0].given"),
    ("Patient", "name.0", {}, "structure", "Patient.name[0]"),
    ("Observation", "code", {}, "structure", "Observation.code"),
    ("Observation", "code", None, "structure", "Observation.code"),
    ("Patient", "name.0", None, "structure", "Patient.name[0]"),
    ("Patient", "name.0.given.1", None, "structure", "Patient.name[0].given[1]"),
    ("Patient", "name.1._given.1", None, "structure", "Patient.name[1].given[1]"),
    ("Patient", "name.0.family", "", "value", "Patient.name[0].family"),
    ("Patient", "_gender", {}, "structure", "Patient.gender"),
    ("Patient", "_gender", [{"id": "a"}], "structure", "Patient.gender"),
    ("Patient", "_gender", {"value": "male"}, "structure", "Patient.gender"),
    # primitives
    ("Patient", "birthDate", "1974-13-25", "value", "Patient.birthDate"),
    ("Patient", "birthDate", "1974-02-30", "value", "Patient.birthDate"),
    ("Patient", "birthDate", "1974-12-25T10:00:00Z", "value", "Patient.birthDate"),
    ("Patient", "birthDate", 1974, "structure", "Patient.birthDate"),
    ("Patient", "active", "true", "structure", "Patient.active"),
    ("Patient", "active", 1, "structure", "Patient.active"),
    ("Patient", "id", "has space", "value", "Patient.id"),
    ("Patient", "id", "x" * 65, "value", "Patient.id"),
    ("Patient", "meta.lastUpdated", "2026-11-21", "value", "Patient.meta.lastUpdated"),
    ("Patient", "telecom.0.rank", 0, "value", "Patient.telecom[0].rank"),
    ("Patient", "telecom.0.rank", True, "structure", "Patient.telecom[0].rank"),
    ("Patient", "name.0.family", "a\u0001b", "value", "Patient.name[0].family"),
    ("Patient", "identifier.0.system", "urn: x", "value", "Patient.identifier[0].system"),
    ("Observation", "valueQuantity.value", "6.30", "structure", "Observation.value.ofType(Quantity).value"),
    ("Observation", "component.0.valueInteger", Decimal("3.0"), "value", "Observation.component[0].value.ofType(integer)"),
    ("Observation", "component.0.valueInteger", 2**31, "value", "Observation.component[0].value.ofType(integer)"),
    ("Observation", "component.0.valueInteger", True, "structure", "Observation.component[0].value.ofType(integer)"),
    ("Observation", "issued", "2013-04-03T15:30", "value", "Observation.issued"),
    ("Observation", "effectivePeriod.start", "2013-04-02T09:30:10", "value", "Observation.effective.ofType(Period).start"),
    ("Observation", "code.coding.0.code", " 1", "value", "Observation.code.coding[0].code"),
    (
        "Observation",
        "extension.0.extension.0.valueDecimal",
        "1.50",
        "structure",
        "Observation.extension[0].extension[0].value.ofType(decimal)",
    ),
    ("DocumentReference", "content.0.attachment.data", "aGVsbG8", "value", "DocumentReference.content[0].attachment.data"),
    (
        "MedicationStatement",
        "dosage.0.timing.repeat.timeOfDay.0",
        "8:00",
        "value",
        "MedicationStatement.dosage[0].timing.repeat.timeOfDay[0]",
    ),
    (
        "MedicationRequest",
        "dispenseRequest.numberOfRepeatsAllowed",
        -1,
        "value",
        "MedicationRequest.dispenseRequest.numberOfRepeatsAllowed",
    ),
    # required bindings
    ("Observation", "status", "done", "code-invalid", "Observation.status"),
    ("Patient", "gender", "M", "code-invalid", "Patient.gender"),
    ("Observation", "valueQuantity.comparator", "=", "code-invalid", "Observation.value.ofType(Quantity).comparator"),
    ("AllergyIntolerance", "category.0", "pollen", "code-invalid", "AllergyIntolerance.category[0]"),
    ("Condition", "clinicalStatus", hl7("over", "condition-clinical"), "code-invalid", "Condition.clinicalStatus"),
    ("AllergyIntolerance", "clinicalStatus", {"text": "active"}, "code-invalid", "AllergyIntolerance.clinicalStatus"),
    ("Bundle", "entry.0.resource.gender", "F", "code-invalid", "Bundle.entry[0].resource.gender"),
    # choices
    ("Observation", "valueString", "high", "structure", "Observation.value"),
    ("Observation", "_valueString", {"id": "a"}, "structure", "Observation.value"),
    ("Patient", "deceasedDateTime", "2020", "structure", "Patient.deceased"),
    ("Observation", "extension.0.extension.0.valueCode", "x", "structure", "Observation.extension[0].extension[0].value"),
    # references and contained resources
    ("Observation", "encounter", to("Patient/1"), "value", "Observation.encounter.reference"),
    ("Observation", "encounter", to("http://x.org/fhir/Patient/1/_history/2"), "value", "Observation.encounter.reference"),
    ("Observation", "encounter", to("Visit/1"), "value", "Observation.encounter.reference"),
    ("Observation", "encounter", {"type": "Patient", "display": "x"}, "value", "Observation.encounter.type"),
    ("Observation", "subject", to("#p"), "value", "Observation.subject.reference"),
    ("Observation", "performer.0", to("#q"), "invariant", "Observation.performer[0].reference"),
    ("Observation", "contained.0.gender", "X", "code-invalid", "Observation.contained[0].gender"),
    ("Observation", "contained.0.resourceType", REMOVE, "required", "Observation.contained[0].resourceType"),
    ("Bundle", "entry.0.resource.resourceType", "Person2", "value", "Bundle.entry[0].resource.resourceType"),
    # invariants
    ("Observation", "contained.0.contained", [{"resourceType": "Patient", "id": "b"}], "invariant", "Observation"),
    ("Observation", "performer", REMOVE, "invariant", "Observation"),  # dom-3: nothing refers to what is contained
    ("Observation", "contained.0.meta", {"versionId": "1"}, "invariant", "Observation"),
    ("Observation", "contained.0.meta", {"security": [{"code": "R"}]}, "invariant", "Observation"),
    ("Observation", "extension.0.valueCode", "x", "invariant", "Observation.extension[0]"),
    ("Observation", "extension.0.extension", REMOVE, "invariant", "Observation.extension[0]"),
    ("Observation", "dataAbsentReason", concept("unknown"), "invariant", "Observation"),
    ("Observation", "component.0.code", concept("15074-8"), "invariant", "Observation"),
    ("Observation", "effectivePeriod.end", "2013-04-02T09:30:11+02:00", "invariant", "Observation.effective.ofType(Period)"),
    ("Observation", "valueQuantity.system", REMOVE, "invariant", "Observation.value.ofType(Quantity)"),
    ("Observation", "referenceRange.0", {"type": concept("normal")}, "invariant", "Observation.referenceRange[0]"),
    ("Observation", "referenceRange.0.low.comparator", "<", "invariant", "Observation.referenceRange[0].low"),
    ("Observation", "referenceRange.0.low.code", "mmol/L", "invariant", "Observation.referenceRange[0].low"),
    ("Observation", "text.div", "<div>no namespace</div>", "value", "Observation.text.div"),
    ("Observation", "text.div", DIV.replace("p>", "script>"), "value", "Observation.text.div"),
    ("Patient", "telecom.0.system", REMOVE, "invariant", "Patient.telecom[0]"),
    ("Patient", "contact.0.name", REMOVE, "invariant", "Patient.contact[0]"),
    ("Goal", "target.0.detailRange.low.value", 200, "invariant", "Goal.target[0].detail.ofType(Range)"),
    ("Goal", "target.0.measure", REMOVE, "invariant", "Goal.target[0]"),
    ("Medication", "ingredient.0.strength.denominator", REMOVE, "invariant", "Medication.ingredient[0].strength"),
    ("DocumentReference", "content.0.attachment.contentType", REMOVE, "invariant", "DocumentReference.content[0].attachment"),
    ("Appointment", "end", REMOVE, "invariant", "Appointment"),
    ("Appointment", "cancelationReason", concept("pat"), "invariant", "Appointment"),
    ("Appointment", "participant.0.actor", REMOVE, "invariant", "Appointment.participant[0]"),
    ("Condition", "clinicalStatus", hl7("active", "condition-clinical"), "invariant", "Condition"),
    ("Condition", "verificationStatus", hl7("entered-in-error", "condition-ver-status"), "invariant", "Condition"),
    ("Condition", "stage", [{"type": concept("x")}], "invariant", "Condition.stage[0]"),
    ("Condition", "onsetAge.code", REMOVE, "invariant", "Condition.onset.ofType(Age)"),
    ("AllergyIntolerance", "clinicalStatus", REMOVE, "invariant", "AllergyIntolerance"),
    (
        "AllergyIntolerance",
        "verificationStatus",
        hl7("entered-in-error", "allergyintolerance-verification"),
        "invariant",
        "AllergyIntolerance",
    ),
    ("Immunization", "education.0", {"publicationDate": "2012"}, "invariant", "Immunization.education[0]"),
    ("Encounter", "length.system", "http://x.org", "invariant", "Encounter.length"),
    ("Consent", "policy", REMOVE, "invariant", "Consent"),
    ("Organization", "name", REMOVE, "invariant", "Organization"),
    ("Organization", "telecom.0.use", "home", "invariant", "Organization.telecom[0]"),
    ("AuditEvent", "entity.0.name", "x", "invariant", "AuditEvent.entity[0]"),
    ("CarePlan", "activity.0.reference", to("Task/1"), "invariant", "CarePlan.activity[0]"),
    ("ServiceRequest", "occurrenceTiming", {"repeat": {"period": 1}}, "invariant", "ServiceRequest.occurrence.ofType(Timing).repeat"),
    ("MedicationStatement", "dosage.0.timing.repeat.period", -1, "invariant", "MedicationStatement.dosage[0].timing.repeat"),
    ("MedicationStatement", "dosage.0.timing.repeat.when", ["ACM"], "invariant", "MedicationStatement.dosage[0].timing.repeat"),
    ("Bundle", "total", 1, "invariant", "Bundle"),
    ("Bundle", "entry.0.request", REMOVE, "invariant", "Bundle"),
    ("Bundle", "entry.0.response", {"status": "200"}, "invariant", "Bundle"),
    ("Bundle", "entry.0.search", {"mode": "match"}, "invariant", "Bundle"),
    ("Bundle", "entry.0.fullUrl", "http://x.org/Patient/1/_history/1", "invariant", "Bundle.entry[0]"),
    ("Bundle", "type", "document", "invariant", "Bundle"),
]

# changes after which the resource is still valid: what a validator may not refuse
HARMLESS: list[tuple[str, str, Any]] = [
    ("Observation", "text", REMOVE),
    ("Observation", "valueQuantity.value", 6),
    ("Observation", "effectivePeriod.end", "2013-04"),
    ("Observation", "encounter", to("urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a")),
    ("Observation", "encounter", {"identifier": {"value": "1"}, "type": "Encounter"}),
    ("Observation", "encounter", to("http://x.org/anything")),
    ("Observation", "encounter", to("Encounter?identifier=x|1")),
    ("Observation", "extension.0", {"url": "http://x.org/r", "valueReference": to("Patient/1")}),
    ("Observation", "modifierExtension", [{"url": "http://x.org/m", "valueBoolean": True}]),
    ("Patient", "birthDate", "1974-12"),
    ("Patient", "birthDate", "2024-02-29"),
    ("Patient", "gender", REMOVE),
    ("Appointment", "status", "noshow"),
    ("Patient", "name.0.family", "O'Brien 🌍\nsecond line"),
]


def spoil(resource: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    *path, last = [int(step) if step.isdigit() else step for step in where.split(".")]
    node: Any = resource
    for step in path:
        node = node[step]
    if value is REMOVE:
        del node[last]
    else:
        node[last] = value
    return resource


@pytest.mark.parametrize(("name", "where", "value", "code", "expression"), CASES)
def test_defect_is_reported_at_its_location(name: str, where: str, value: Any, code: str, expression: str) -> None:
    issues = check(name, spoil(example(name), where, value))
    assert (code, (expression,)) in [(issue.code, issue.expression) for issue in issues], issues


@pytest.mark.parametrize(("name", "where", "value"), HARMLESS)
def test_harmless_change_is_accepted(name: str, where: str, value: Any) -> None:
    assert check(name, spoil(example(name), where, value)) == ()


def test_extension_can_replace_a_required_value() -> None:
    reason = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}
    resource = spoil(example("Observation"), "status", REMOVE)
    assert check("Observation", resource)
    assert check("Observation", resource | {"_status": {"extension": [reason]}}) == ()


def test_app_4_accepts_noshow_despite_misspelled_expression() -> None:
    resource = example("Appointment") | {"status": "noshow", "cancelationReason": concept("pat")}
    assert check("Appointment", resource) == ()


def test_a_resource_of_another_type_is_refused() -> None:
    (issue,) = check("Patient", example("Observation"))
    assert issue.expression == ("Patient.resourceType",)


def test_bundle_with_duplicate_entry_is_refused() -> None:
    resource = example("Bundle")
    resource["entry"].append(resource["entry"][0])
    assert any("bdl-7" in issue.text for issue in check("Bundle", resource))


def test_issues_are_capped_at_fifty() -> None:
    assert len(check("Patient", {"resourceType": "Patient", "name": [{"x": 1}] * 200})) == 50


def test_issue_text_truncates_long_values() -> None:
    (issue,) = check("Patient", example("Patient") | {"gender": "x" * 5000})
    assert len(issue.text) < 200
