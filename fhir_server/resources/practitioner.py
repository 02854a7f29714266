"""Practitioner (http://hl7.org/fhir/R4/practitioner.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Practitioner",
    "directory",
    departments=("qualification.code",),
)
