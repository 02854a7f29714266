"""Communication: it belongs to the patient it is about, not to sender or recipient (http://hl7.org/fhir/R4/communication.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Communication",
    "message",
    subjects=("subject",),
    inherits_labels_from=("encounter", "basedOn", "partOf", "inResponseTo", "reasonReference"),
    member_references=("about", "payload.content[x]"),
    summaries=("payload", "topic"),
    hidden_status=frozenset({"preparation"}),
)
