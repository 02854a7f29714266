"""Procedure (http://hl7.org/fhir/R4/procedure.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Procedure",
    "procedure",
    subjects=("subject",),
    context=("encounter", "basedOn", "partOf", "location", "reasonReference"),
    coded=("code", "category", "reasonCode", "bodySite", "outcome", "complication", "followUp", "usedCode"),
    members=("report", "complicationDetail", "focalDevice.manipulated", "usedReference"),
    hidden_status=frozenset({"preparation", "entered-in-error"}),
    departments=("location",),
)
