"""AuditEvent: it is about the patients that it names as entities, not about the agents (http://hl7.org/fhir/R4/auditevent.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "AuditEvent",
    "audit",
    subjects=("entity.what",),
    inherits_labels_from=("agent.location",),
    member_references=("entity.what",),
    summaries=("outcomeDesc",),
)
