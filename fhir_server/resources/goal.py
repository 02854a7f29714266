"""Goal (http://hl7.org/fhir/R4/goal.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Goal",
    "careplan",
    subjects=("subject",),
    coded=("description", "category", "target.measure", "target.detail[x]", "outcomeCode"),
    members=("addresses", "outcomeReference"),
)
