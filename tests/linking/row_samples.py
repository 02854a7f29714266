"""Resources of R4, STU3 and DSTU2 systems, each with the exact words of its row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PEANUT = {"text": "Peanut"}
V3 = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"


@dataclass(frozen=True)
class Sample:
    name: str
    resource: dict[str, Any]
    what: str
    standing: str
    details: tuple[str, ...] = ()


def observation(**members: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "LDL"}} | members


def coded(code: str) -> dict[str, Any]:
    return {"coding": [{"code": code}]}


def _value(name: str, shown: str, **members: Any) -> Sample:
    return Sample(name, observation(**members), "LDL", "Final", (shown,))


def _status(type: str, status: str | None, standing: str, *, what: str = "No description", **members: Any) -> Sample:
    details = ("No value was sent",) if type == "Observation" else ()
    stated = {} if status is None else {"status": status}
    return Sample(f"{type} {status} {members or ''}", {"resourceType": type} | stated | members, what, standing, details)


def _medicine(type: str, standing: str, what: str = "Aspirin", **members: Any) -> Sample:
    resource = {"resourceType": type, "medicationCodeableConcept": {"text": "Aspirin"}} | members
    return Sample(f"{type} {members}", resource, what, standing)


def _allergy(standing: str, what: str = "Peanut", **members: Any) -> Sample:
    return Sample(f"allergy {members}", {"resourceType": "AllergyIntolerance", "code": PEANUT} | members, what, standing)


def _quantity(value: object, **members: Any) -> dict[str, Any]:
    return {"value": value, "unit": "mg/dL"} | members


SAMPLES = [
    # values
    _value("quantity", "4 mg/dL", valueQuantity=_quantity(4)),
    _value("less than", "< 4 mg/dL", valueQuantity=_quantity(4, comparator="<")),
    _value("at most", "<= 4 mg/dL", valueQuantity=_quantity(4, comparator="<=")),
    _value("more than", "> 4 mg/dL", valueQuantity=_quantity(4, comparator=">")),
    _value("at least", ">= 4 mg/dL", valueQuantity=_quantity(4, comparator=">=")),
    _value("unknown comparator", "a value that cannot be shown here", valueQuantity=_quantity(4, comparator="~")),
    _value("comparator of a wrong shape", "a value that cannot be shown here", valueQuantity=_quantity(4, comparator=["<"])),
    _value("text as number", "a value that cannot be shown here", valueQuantity=_quantity("4")),
    _value("unit by code", "4 mg/dL", valueQuantity={"value": 4, "code": "mg/dL"}),
    _value("range", "3 mg/dL to 5 mg/dL", valueRange={"low": _quantity(3), "high": _quantity(5)}),
    _value("range without an end", "3 mg/dL or more", valueRange={"low": _quantity(3)}),
    _value("range without a start", "5 mg/dL or less", valueRange={"high": _quantity(5)}),
    _value("ratio", "1 : < 128", valueRatio={"numerator": {"value": 1}, "denominator": {"value": 128, "comparator": "<"}}),
    _value("yes", "Yes", valueBoolean=True),
    _value("no", "No", valueBoolean=False),
    _value("zero", "0", valueInteger=0),
    _value("concept", "Not detected", valueCodeableConcept={"coding": [{"code": "x", "display": "Not detected"}]}),
    _value("text", "Negative", valueString="Negative"),
    _value("time", "08:30:00", valueTime="08:30:00"),
    _value("moment", "2 January 2026, 03:04", valueDateTime="2026-01-02T03:04:05Z"),
    _value("period", "2 January 2026 to 3 January 2026", valuePeriod={"start": "2026-01-02", "end": "2026-01-03"}),
    _value("samples", "a value that cannot be shown here", valueSampledData={"data": "1 2 3"}),
    _value("type of a later version", "a value that cannot be shown here", valueNew="x"),
    _value("interpretation", "9 mg/dL (Critical high)", valueQuantity=_quantity(9), interpretation=[{"text": "Critical high"}]),
    _value("interpretation by code", "9 mg/dL (Critical high)", valueQuantity=_quantity(9), interpretation=[coded("HH")]),
    _value("interpretation of STU3", "9 mg/dL (High)", valueQuantity=_quantity(9), interpretation=coded("H")),
    _value("interpretation alone", "Positive", interpretation=[coded("POS")]),
    _value("absent", "No value: not performed", dataAbsentReason=coded("not-performed")),
    _value("absent, with a text", "No value: Hemolyzed", dataAbsentReason={"text": "Hemolyzed"}),
    _value("absent by extension", "No value: not known", valueQuantity={
        "_value": {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]},
    }),
    _value("nothing", "No value was sent"),
    _value("group", "A group of results, which are entries of their own", hasMember=[{"reference": "Observation/2"}]),
    Sample(
        "components",
        observation(
            code={"text": "Blood pressure"},
            component=[
                {"code": {"text": "Systolic"}, "valueQuantity": {"value": 120, "unit": "mmHg"}, "interpretation": [coded("N")]},
                {"code": {"text": "Diastolic"}, "dataAbsentReason": coded("unknown")},
                {"code": {"text": "Mean"}},
            ],
        ),
        "Blood pressure", "Final", ("Systolic: 120 mmHg (Normal)", "Diastolic: No value: not known", "Mean: No value was sent"),
    ),
    Sample(
        "reference range",
        observation(valueQuantity=_quantity(4), referenceRange=[
            {"low": _quantity(1), "high": _quantity(3), "appliesTo": [{"text": "Women"}]}, {"text": "See report"},
        ]),
        "LDL", "Final", ("4 mg/dL", "Reference range: 1 mg/dL to 3 mg/dL (Women); See report"),
    ),
    Sample("note", observation(valueInteger=1, note=[{"text": "Sample too old"}]), "LDL", "Final", ("1", "Note: Sample too old")),
    Sample("comments of DSTU2", observation(valueInteger=1, comments="Repeat"), "LDL", "Final", ("1", "Note: Repeat")),
    Sample("focus", observation(valueInteger=1, focus=[{"display": "Donor"}]), "LDL", "Final", (
        "1", "Not about the patient, but about: Donor",
    )),
    Sample(
        "modifier", observation(valueInteger=1, modifierExtension=[{"url": "x"}]), "LDL", "Final",
        ("The other health system marked this entry in a way that may change its meaning and that cannot be shown here", "1"),
    ),
    # statuses of results
    _status("Observation", "registered", "Not available yet"),
    _status("Observation", "preliminary", "Preliminary: may still change"),
    _status("Observation", "amended", "Amended after it was final"),
    _status("Observation", "corrected", "Corrected after it was final"),
    _status("Observation", "cancelled", "Canceled: not a valid result"),
    _status("Observation", "unknown", "Status not known"),
    _status("Observation", "brand-new", "Status “brand-new”"),
    _status("Observation", None, "Status not stated"),
    # allergies: R4, STU3, DSTU2
    _allergy("Active, confirmed", clinicalStatus=coded("active"), verificationStatus=coded("confirmed")),
    _allergy(
        "Resolved, refuted: this was found not to be so", "Ruled out: Peanut",
        clinicalStatus=coded("resolved"), verificationStatus=coded("refuted"),
    ),
    _allergy("Not active, not confirmed", clinicalStatus=coded("inactive"), verificationStatus=coded("unconfirmed")),
    _allergy("Status not stated"),
    _allergy("Active, refuted: this was found not to be so", "Ruled out: Peanut", clinicalStatus="active", verificationStatus="refuted"),
    _allergy("Refuted: this was found not to be so", "Ruled out: Peanut", status="refuted"),
    _allergy("Not confirmed", status="unconfirmed"),
    _allergy("Resolved", status="resolved"),
    Sample(
        "allergy of DSTU2",
        {"resourceType": "AllergyIntolerance", "substance": PEANUT, "status": "active", "criticality": "CRITH",
         "reaction": [{"manifestation": [{"text": "Hives"}], "severity": "severe"}], "note": {"text": "Seen in 2001"}},
        "Peanut", "Active", ("Reaction: Hives", "Severity of a reaction: severe",
                             "Risk of a life-threatening reaction: high", "Note: Seen in 2001"),
    ),
    # medicines
    _medicine("MedicationRequest", "Active", status="active", intent="order"),
    _medicine("MedicationRequest", "Stopped", status="stopped", intent="order"),
    _medicine("MedicationRequest", "Canceled: not to be taken", status="cancelled"),
    _medicine("MedicationRequest", "On hold", status="on-hold"),
    _medicine("MedicationRequest", "Draft: not prescribed", status="draft"),
    _medicine("MedicationRequest", "Active; A proposal, not a prescription", status="active", intent="proposal"),
    _medicine("MedicationRequest", "Active", "Do not take: Aspirin", status="active", doNotPerform=True),
    _medicine("MedicationRequest", "Active", status="active", doNotPerform=False),
    _medicine("MedicationRequest", "Active", "Do not take: Aspirin", status="active", doNotPerform="true"),
    _medicine("MedicationOrder", "Stopped", status="stopped"),
    _medicine("MedicationStatement", "Active", status="active"),
    _medicine("MedicationStatement", "Stopped: no longer taken", status="stopped"),
    _medicine("MedicationStatement", "Not taken", "Not taken: Aspirin", status="not-taken"),
    _medicine("MedicationStatement", "Active; Not taken", "Not taken: Aspirin", status="active", taken="n"),
    _medicine("MedicationStatement", "Active; Not known whether it is taken", status="active", taken="unk"),
    _medicine("MedicationStatement", "Active", "Not taken: Aspirin", status="active", wasNotTaken=True),
    _medicine("MedicationStatement", "Planned: not taken yet", status="intended"),
    Sample(
        "contained medicine",
        {"resourceType": "MedicationRequest", "status": "active", "medicationReference": {"reference": "#m"},
         "contained": [{"resourceType": "Medication", "id": "m", "code": {"text": "Warfarin"}}],
         "dosageInstruction": [{"text": "5 mg daily"}], "statusReason": {"text": "Bleeding"}},
        "Warfarin", "Active", ("5 mg daily", "Reason for the status: Bleeding"),
    ),
    Sample(
        "medicine by reference alone",
        {"resourceType": "MedicationRequest", "status": "active", "medicationReference": {"reference": "Medication/9"}},
        "A medicine that the other health system did not name", "Active",
    ),
    # health issues
    _status("Condition", None, "Active, confirmed", what="Asthma", code={"text": "Asthma"}, clinicalStatus=coded("active"),
            verificationStatus=coded("confirmed")),
    _status("Condition", None, "Refuted: this was found not to be so", what="Ruled out: Asthma", code={"text": "Asthma"},
            verificationStatus="refuted"),
    _status("Condition", None, "Active, one of several possibilities, not confirmed", what="Asthma", code={"text": "Asthma"},
            clinicalStatus="active", verificationStatus="differential"),
    Sample(
        "ended health issue",
        {"resourceType": "Condition", "code": {"text": "Asthma"}, "clinicalStatus": coded("resolved"),
         "onsetAge": {"value": 7, "unit": "years"},
         "abatementDateTime": "2020-05-03", "severity": {"text": "Mild"}},
        "Asthma", "Resolved", ("Severity: Mild", "Began: at the age of 7 years", "Ended: 3 May 2020"),
    ),
    # visits, teams, messages
    _status("Appointment", "cancelled", "Canceled"),
    _status("Appointment", "noshow", "Missed"),
    _status("Appointment", "proposed", "Proposed: not booked"),
    _status("Encounter", "cancelled", "Canceled: did not take place"),
    _status("Encounter", "finished", "Finished"),
    _status("CareTeam", "inactive", "No longer active"),
    _status("Communication", "not-done", "Not sent", what="Not done: No description"),
    Sample(
        "message that was not sent (STU3)",
        {"resourceType": "Communication", "status": "completed", "notDone": True, "payload": [{"contentString": "Come at 9"}],
         "topic": {"text": "Visit"}},
        "Not done: Come at 9", "Completed", ("About: Visit",),
    ),
]  # fmt: skip
