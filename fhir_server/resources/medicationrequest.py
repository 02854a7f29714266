"""MedicationRequest: what was prescribed and for what (http://hl7.org/fhir/R4/medicationrequest.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "MedicationRequest",
    "medication",
    subjects=("subject",),
    inherits_labels_from=("encounter", "basedOn", "priorPrescription", "medication[x]", "reasonReference"),
    member_references=("detectedIssue", "supportingInformation"),
    departments=("requester", "performer"),
    hidden_status=frozenset({"draft"}),
)
