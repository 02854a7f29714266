"""Condition (http://hl7.org/fhir/R4/condition.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Condition",
    "condition",
    subjects=("subject",),
    context=("encounter",),
    coded=("code", "category", "bodySite", "stage.summary", "evidence.code"),
    members=("stage.assessment", "evidence.detail"),
)
