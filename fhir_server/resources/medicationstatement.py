"""MedicationStatement: what a patient takes (http://hl7.org/fhir/R4/medicationstatement.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "MedicationStatement",
    "medication",
    subjects=("subject",),
    context=("context", "basedOn", "partOf", "medication[x]", "reasonReference"),
    coded=("medication[x]", "reasonCode", "category"),
    knowing=("medication[x]",),
    members=("derivedFrom",),
    hidden_status=frozenset({"entered-in-error"}),
)
