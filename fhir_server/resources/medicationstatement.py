"""MedicationStatement: what a patient takes (http://hl7.org/fhir/R4/medicationstatement.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "MedicationStatement",
    "medication",
    subjects=("subject",),
    inherits_labels_from=("context", "basedOn", "partOf", "medication[x]", "reasonReference"),
    member_references=("derivedFrom",),
)
