"""AllergyIntolerance (http://hl7.org/fhir/R4/allergyintolerance.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "AllergyIntolerance",
    "allergy",
    subjects=("patient",),
    inherits_labels_from=("encounter",),
)
