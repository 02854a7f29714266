"""Goal (http://hl7.org/fhir/R4/goal.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Goal",
    "careplan",
    subjects=("subject",),
    member_references=("addresses", "outcomeReference"),
)
