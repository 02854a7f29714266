"""Location: a department or a place (http://hl7.org/fhir/R4/location.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Location",
    "directory",
    departments=("type", "managingOrganization", "partOf"),
)
