"""Immunization (http://hl7.org/fhir/R4/immunization.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Immunization",
    "immunization",
    subjects=("patient",),
    inherits_labels_from=("encounter", "location"),
    member_references=("reasonReference", "reaction.detail"),
    departments=("location",),
)
