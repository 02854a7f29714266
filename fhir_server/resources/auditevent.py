"""AuditEvent: who looked at what; it is about whom it names as an entity, not about who acted (http://hl7.org/fhir/R4/auditevent.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "AuditEvent",
    "audit",
    subjects=("entity.what",),
    inherits_labels_from=("agent.location",),
    label_codes=("type", "subtype", "purposeOfEvent", "entity.type"),
    member_references=("entity.what",),
)
