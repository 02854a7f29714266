"""Procedure (http://hl7.org/fhir/R4/procedure.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Procedure",
    "procedure",
    subjects=("subject",),
    inherits_labels_from=("encounter", "basedOn", "partOf", "location", "reasonReference"),
    member_references=("report", "complicationDetail", "focalDevice.manipulated", "usedReference"),
    hidden_status=frozenset({"preparation"}),
    departments=("location", "performer.actor", "performer.onBehalfOf"),
)
