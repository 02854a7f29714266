"""CareTeam: a member of a sensitive department is withheld, not the whole team (http://hl7.org/fhir/R4/careteam.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "CareTeam",
    "careteam",
    subjects=("subject",),
    inherits_labels_from=("encounter", "managingOrganization"),
    member_references=("participant.member", "participant.onBehalfOf", "reasonReference"),
    departments=("managingOrganization",),
)
