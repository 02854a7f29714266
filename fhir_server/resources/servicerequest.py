"""ServiceRequest: an order; its results inherit its categories (http://hl7.org/fhir/R4/servicerequest.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "ServiceRequest",
    "lab",
    by_category={
        "363679005": "imaging",
        "387713003": "procedure",
        "409063005": "visit",
        "409073007": "visit",
        "108252007": "lab",
    },
    subjects=("subject",),
    inherits_labels_from=("encounter", "basedOn", "replaces", "locationReference", "reasonReference"),
    member_references=("specimen", "supportingInfo"),
    hidden_status=frozenset({"draft"}),
    departments=("locationReference", "locationCode", "requester", "performer", "performerType"),
)
