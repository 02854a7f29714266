"""Patient: belongs to itself (http://hl7.org/fhir/R4/patient.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Patient",
    "demographics",
    subjects=("id",),
    member_references=("generalPractitioner", "managingOrganization", "link.other", "contact.organization"),
)
