"""Organization (http://hl7.org/fhir/R4/organization.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Organization",
    "directory",
    departments=("type", "partOf"),
)
