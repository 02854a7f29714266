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


def _named(type: str, /, name: str, element: str, standing: str, what: str, details: tuple[str, ...] = (), **members: Any) -> Sample:
    return Sample(f"{type} {members}", {"resourceType": type, element: {"text": name}} | members, what, standing, details)


def _vaccination(standing: str, what: str = "Measles", **members: Any) -> Sample:
    return _named("Immunization", "Measles", "vaccineCode", standing, what, **members)


def _procedure(standing: str, what: str = "Appendectomy", **members: Any) -> Sample:
    return _named("Procedure", "Appendectomy", "code", standing, what, **members)


def _report(standing: str, **members: Any) -> Sample:
    return _named("DiagnosticReport", "Blood count", "code", standing, "Blood count", **members)


def _document(standing: str, **members: Any) -> Sample:
    content = {"content": [{"attachment": {"url": "Binary/1"}}]}
    return _named(
        "DocumentReference", "Letter", "type", standing, "Letter", ("The document itself cannot be shown here",), **content, **members
    )


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
        "Not about the patient, but about: Donor", "1",
    )),
    Sample(
        "modifier", observation(valueInteger=1, modifierExtension=[{"url": "x"}]), "LDL", "Final",
        ("This entry is marked in a way that may change its meaning and that cannot be shown here", "1"),
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
        "A medicine without a name", "Active",
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
    # vaccinations
    _vaccination("Given", status="completed"),
    _vaccination("Not given", "Not given: Measles", status="not-done"),
    _vaccination("Given", "Not given: Measles", status="completed", notGiven=True),
    _vaccination("Given", "Not given: Measles", status="completed", wasNotGiven=True),
    _vaccination("Status not known", status="unknown"),
    _vaccination("Status not stated; not asked", _status={"extension": [
        {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "not-asked"},
    ]}),
    Sample(
        "weak vaccination reported by someone",
        {"resourceType": "Immunization", "status": "completed", "vaccineCode": {"text": "Measles"}, "isSubpotent": True,
         "subpotentReason": [{"text": "Kept too warm"}], "primarySource": False, "occurrenceString": "As a child",
         "doseQuantity": {"value": 0.5, "unit": "mL"}, "protocolApplied": [{"doseNumberPositiveInt": 2}]},
        "Measles", "Given", ("Dose number: 2", "Why it was weaker: Kept too warm", "Dose: 0.5 mL",
                             "This dose was weaker than intended and may not protect", "Reported by someone who did not give it",
                             "When: As a child"),
    ),
    Sample(
        "vaccination that was declined",
        {"resourceType": "Immunization", "status": "not-done", "vaccineCode": {"text": "Measles"}, "statusReason": {"text": "Declined"}},
        "Not given: Measles", "Not given", ("Reason for the status: Declined",),
    ),
    # medicines that were given or handed out
    _medicine("MedicationAdministration", "Given", status="completed"),
    _medicine("MedicationAdministration", "Not given", "Not given: Aspirin", status="not-done"),
    _medicine("MedicationAdministration", "Given", "Not given: Aspirin", status="completed", wasNotGiven=True),
    _medicine("MedicationAdministration", "Stopped before all of it was given", status="stopped"),
    _medicine("MedicationAdministration", "Interrupted: not given at present", status="on-hold"),
    _medicine("MedicationDispense", "Handed out", status="completed"),
    _medicine("MedicationDispense", "Handed out", "Not handed out: Aspirin", status="completed", notDone=True),
    _medicine("MedicationDispense", "Declined: not handed out", status="declined"),
    _medicine("MedicationDispense", "Canceled: not handed out", status="cancelled"),
    Sample(
        "dose that was given",
        {"resourceType": "MedicationAdministration", "status": "completed", "medicationCodeableConcept": {"text": "Heparin"},
         "dosage": {"dose": {"value": 5000, "code": "[iU]", "unit": "IU", "comparator": "<"}}},
        "Heparin", "Given", ("Dose: < 5000 IU",),
    ),
    # procedures
    _procedure("Done", status="completed"),
    _procedure("Not done", "Not done: Appendectomy", status="not-done"),
    _procedure("Done", "Not done: Appendectomy", status="completed", notPerformed=True),
    _procedure("Done", "Not done: Appendectomy", status="completed", notDone=True),
    _procedure("Stopped before it was finished", status="stopped"),
    _procedure("Stopped before it was finished", status="aborted"),
    _procedure("Being prepared: not done yet", status="preparation"),
    Sample(
        "procedure at an age",
        {"resourceType": "Procedure", "status": "completed", "code": {"text": "Appendectomy"},
         "performedAge": {"value": 9, "unit": "years"}, "outcome": {"text": "Successful"}, "bodySite": [{"text": "Abdomen"}]},
        "Appendectomy", "Done", ("Where: Abdomen", "Outcome: Successful", "When: at the age of 9 years"),
    ),
    # reports
    _report("Final", status="final"),
    _report("Partial: may still change", status="partial"),
    _report("Preliminary: may still change", status="preliminary"),
    _report("Canceled: not a valid report", status="cancelled"),
    _report("Corrected after it was final", status="corrected"),
    Sample(
        "report with a file",
        {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "Chest X-ray"}, "conclusion": "No fracture",
         "conclusionCode": [{"text": "Normal"}], "presentedForm": [{"contentType": "application/pdf"}]},
        "Chest X-ray", "Final", ("Conclusion: No fracture", "Findings: Normal", "The report itself cannot be shown here"),
    ),
    # documents
    _document("Current, final", status="current", docStatus="final"),
    _document("Current, preliminary: may still change", status="current", docStatus="preliminary"),
    _document("Replaced by a newer document", status="superseded"),
    _document("Current, document status “brand-new”", status="current", docStatus="brand-new"),
    _document("Final", docStatus={"coding": [{"code": "final"}]}),
    # names that are absent
    Sample(
        "absent name",
        {"resourceType": "Condition", "clinicalStatus": coded("active"), "code": {"extension": [
            {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"},
        ]}},
        "No description (withheld)", "Active",
    ),
]  # fmt: skip
