"""Goal (http://hl7.org/fhir/R4/goal.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Goal",
    "careplan",
    subjects=("subject",),
    label_codes=("description", "category", "target.measure", "target.detail[x]", "outcomeCode"),
    member_references=("addresses", "outcomeReference"),
)
