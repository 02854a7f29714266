"""Condition (http://hl7.org/fhir/R4/condition.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Condition",
    "condition",
    subjects=("subject",),
    inherits_labels_from=("encounter",),
    member_references=("stage.assessment", "evidence.detail"),
)
