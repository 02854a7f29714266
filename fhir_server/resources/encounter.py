"""Encounter: a visit; what refers to it inherits the category of its department (http://hl7.org/fhir/R4/encounter.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Encounter",
    "visit",
    subjects=("subject",),
    inherits_labels_from=("basedOn", "appointment", "episodeOfCare", "partOf", "location.location", "serviceProvider"),
    member_references=("reasonReference", "diagnosis.condition", "account"),
    departments=(
        "serviceType",
        "type",
        "location.location",
        "serviceProvider",
        "participant.individual",
        "hospitalization.origin",
        "hospitalization.destination",
        "hospitalization.admitSource",
        "hospitalization.dischargeDisposition",
    ),
)
