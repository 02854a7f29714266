"""Where resources have what a row shows: name, dates and details of each type, in the shapes of R4, STU3 and DSTU2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Shape:
    """Where a type has its name, its dates and its details: (label, paths); in each, the first path with a value is used.

    ``amounts``  (label, path) of amounts of money
    """

    name: tuple[str, ...]
    dates: tuple[str, ...]
    details: tuple[tuple[str, tuple[str, ...]], ...] = ()
    amounts: tuple[tuple[str, str], ...] = ()


_DOSE: Final = ("dosageInstruction.text", "dosageInstruction.patientInstruction")
_ORDER: Final = Shape((), ("authoredOn", "dateWritten"), (("", _DOSE), ("Reason for the status", ("statusReason", "reasonEnded"))))
SHAPES: Final[Mapping[str, Shape]] = {
    "AllergyIntolerance": Shape(
        ("code", "substance"),
        ("recordedDate", "assertedDate", "onsetDateTime", "onset"),
        (
            ("Reaction", ("reaction.manifestation.concept", "reaction.manifestation", "reaction.description")),
            ("Severity of a reaction", ("reaction.severity",)),
        ),
    ),
    "MedicationRequest": _ORDER,
    "MedicationOrder": _ORDER,
    "MedicationStatement": Shape(
        (),
        ("effectiveDateTime", "effectivePeriod.start", "dateAsserted"),
        (
            ("", ("dosage.text",)),
            ("Reason for the status", ("statusReason", "reasonNotTaken")),
        ),
    ),
    "Observation": Shape(("code",), ("effectiveDateTime", "effectivePeriod.start", "effectiveInstant", "issued")),
    "Appointment": Shape(
        ("serviceType", "appointmentType", "type", "description"),
        ("start",),
        (("With", ("participant.actor",)), ("Reason for the status", ("cancelationReason", "cancellationReason"))),
    ),
    "Encounter": Shape(
        ("type", "serviceType", "class"), ("period.start",), (("At", ("location.location",)), ("With", ("participant.individual",)))
    ),
    "Condition": Shape(
        ("code",),
        ("onsetDateTime", "onsetPeriod.start", "recordedDate", "assertedDate", "dateRecorded"),
        (("Severity", ("severity",)),),
    ),
    "CareTeam": Shape(("name", "category"), ("period.start",), (("Members", ("participant.member",)),)),
    "Communication": Shape(
        ("payload.contentString",),
        ("sent", "received"),
        (("About", ("topic", "reasonCode", "reason")), ("Reason for the status", ("statusReason", "notDoneReason", "reasonNotPerformed"))),
    ),
    "Immunization": Shape(
        ("vaccineCode",),
        ("occurrenceDateTime", "date"),
        (
            (
                "Dose number",
                ("protocolApplied.doseNumberPositiveInt", "protocolApplied.doseNumberString", "vaccinationProtocol.doseSequence"),
            ),
            ("Why it was weaker", ("subpotentReason",)),
            ("Reason for the status", ("statusReason", "explanation.reasonNotGiven")),
        ),
    ),
    "MedicationAdministration": Shape(
        (),
        ("effectiveDateTime", "effectivePeriod.start", "effectiveTimeDateTime", "effectiveTimePeriod.start"),
        (("", ("dosage.text",)), ("Reason for the status", ("statusReason", "reasonNotGiven"))),
    ),
    "MedicationDispense": Shape(
        (),
        ("whenHandedOver", "whenPrepared"),
        (
            ("", _DOSE),
            ("Reason for the status", ("statusReasonCodeableConcept", "statusReasonReference.display", "notDoneReasonCodeableConcept")),
        ),
    ),
    "Procedure": Shape(
        ("code",),
        ("performedDateTime", "performedPeriod.start"),
        (
            ("Where", ("bodySite",)),
            ("With", ("performer.actor",)),
            ("Outcome", ("outcome",)),
            ("Reason for the status", ("statusReason", "notDoneReason", "reasonNotPerformed")),
        ),
    ),
    "DiagnosticReport": Shape(
        ("code",),
        ("effectiveDateTime", "effectivePeriod.start", "issued"),
        (("Conclusion", ("conclusion",)), ("Findings", ("conclusionCode", "codedDiagnosis"))),
    ),
    "DocumentReference": Shape(
        ("type", "description", "content.attachment.title", "category", "class"),
        ("date", "created", "indexed"),
        (("Description", ("description",)), ("Author", ("author",))),
    ),
    "Goal": Shape(
        ("description",),
        ("startDate", "statusDate"),
        (
            ("Target", ("target.detailString", "target.detailCodeableConcept")),
            ("By", ("target.dueDate",)),
            ("Set by", ("expressedBy",)),
            ("Reason for the status", ("statusReason",)),
        ),
    ),
    "CarePlan": Shape(
        ("title", "category"),
        ("period.start", "created"),
        (("", ("description",)), ("Steps", ("activity.detail.description", "activity.detail.code", "activity.reference.display"))),
    ),
    "FamilyMemberHistory": Shape(
        ("relationship",), ("date",), (("", ("name",)), ("Health issues", ("condition.code",)), ("Reason", ("reasonCode",)))
    ),
    "Coverage": Shape(
        ("type", "class.name", "class.value"),
        ("period.start",),
        (
            ("Insurer", ("payor",)),
            ("Member number", ("subscriberId", "identifier.value")),
            ("Plan", ("class.name", "class.value")),
            ("Until", ("period.end",)),
        ),
    ),
    "Account": Shape(("name", "type"), ("servicePeriod.start",), (("", ("description",)), ("Until", ("servicePeriod.end",)))),
    "Task": Shape(
        ("code", "description"),
        ("authoredOn", "lastModified"),
        (("", ("description",)), ("Reason for the status", ("statusReason",)), ("At present with", ("owner",))),
    ),
    "Invoice": Shape(
        ("type", "identifier.value"), ("date",), (("To pay by", ("paymentTerms",)),), (("Total", "totalGross"), ("Net", "totalNet"))
    ),
    "ChargeItem": Shape(("code",), ("occurrenceDateTime", "occurrencePeriod.start", "enteredDate"), (), (("Price", "priceOverride"),)),
    "ExplanationOfBenefit": Shape(
        ("type",),
        ("created", "billablePeriod.start"),
        (("Insurer", ("insurer",)), ("Provider", ("provider",)), ("", ("disposition",))),
        (("Paid by the insurer", "payment.amount"),),
    ),
}
# Amounts of money in extensions, by their URL
EXTENSIONS: Final = {"https://fhir-server.example/ig/StructureDefinition/account-balance": ("Balance", "valueMoney")}
TYPES: Final = tuple(SHAPES)
ANY: Final = Shape(
    ("code", "type", "title", "name", "description", "category", "deviceName.name", "class", "identifier.value"),
    ("date", "period.start", "recorded", "created", "authoredOn", "sent", "issued", "occurrenceDateTime", "effectiveDateTime", "dateTime"),
)
"""The shape of a type without one of its own."""
