"""HealthcareService: a department that offers appointments (http://hl7.org/fhir/R4/healthcareservice.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "HealthcareService",
    "directory",
    departments=("category", "type", "specialty", "location", "providedBy"),
)
