"""MedicationRequest: what was prescribed and for what (http://hl7.org/fhir/R4/medicationrequest.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "MedicationRequest",
    "medication",
    subjects=("subject",),
    context=("encounter", "basedOn", "priorPrescription", "medication[x]", "reasonReference"),
    coded=("medication[x]", "reasonCode", "category"),
    knowing=("medication[x]",),
    members=("detectedIssue", "supportingInformation"),
    hidden_status=frozenset({"draft", "entered-in-error"}),
)
