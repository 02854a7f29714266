"""CarePlan (http://hl7.org/fhir/R4/careplan.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "CarePlan",
    "careplan",
    subjects=("subject",),
    inherits_labels_from=("encounter", "basedOn", "partOf"),
    member_references=(
        "addresses",
        "goal",
        "activity.reference",
        "activity.outcomeReference",
        "activity.detail.reasonReference",
        "supportingInfo",
    ),
    hidden_status=frozenset({"draft"}),
)
