"""Encounter: a visit, whose department decides for all that refers to it (http://hl7.org/fhir/R4/encounter.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Encounter",
    "visit",
    subjects=("subject",),
    context=("basedOn", "appointment", "episodeOfCare", "partOf", "location.location", "serviceProvider"),
    coded=("type", "serviceType", "class", "reasonCode", "participant.type"),
    knowing=("type", "serviceType"),
    members=("reasonReference", "diagnosis.condition", "account"),
    hidden_status=frozenset({"entered-in-error"}),
    departments=("serviceType", "type", "location.location", "serviceProvider"),
)
