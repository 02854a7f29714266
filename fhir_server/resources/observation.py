"""Observation: results, vital signs, habits, answers (http://hl7.org/fhir/R4/observation.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Observation",
    "lab",
    # The most protective class comes first: it decides if a resource has several categories.
    by_category={
        "social-history": "social",
        "survey": "survey",
        "laboratory": "lab",
        "imaging": "imaging",
        "exam": "procedure",
        "procedure": "procedure",
        "therapy": "procedure",
        "activity": "procedure",
        "vital-signs": "vitals",
    },
    subjects=("subject",),
    inherits_labels_from=("encounter", "basedOn", "partOf", "specimen", "device", "focus"),
    member_references=("hasMember", "derivedFrom"),
    hidden_status=frozenset({"registered", "preliminary"}),
)
