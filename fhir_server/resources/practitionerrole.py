"""PractitionerRole: which department a practitioner works for (http://hl7.org/fhir/R4/practitionerrole.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "PractitionerRole",
    "directory",
    departments=("code", "specialty", "practitioner", "healthcareService", "location", "organization"),
)
