"""Account: a joint account is labeled MIXED (http://hl7.org/fhir/R4/account.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Account",
    "billing",
    subjects=("subject",),
    shared_rows="all",
    inherits_labels_from=("partOf",),
)
