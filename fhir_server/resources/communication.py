"""Communication: a message belongs to the patient it is about (http://hl7.org/fhir/R4/communication.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Communication",
    "message",
    subjects=("subject",),
    context=("encounter", "basedOn", "partOf", "inResponseTo", "reasonReference"),
    coded=("category", "topic", "reasonCode"),
    members=("about", "payload.content[x]"),
    hidden_status=frozenset({"preparation", "entered-in-error"}),
)
