"""Immunization (http://hl7.org/fhir/R4/immunization.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Immunization",
    "immunization",
    subjects=("patient",),
    context=("encounter", "location"),
    coded=("vaccineCode", "reasonCode", "protocolApplied.targetDisease"),
    members=("reasonReference", "reaction.detail"),
    hidden_status=frozenset({"entered-in-error"}),
    departments=("location",),
)
