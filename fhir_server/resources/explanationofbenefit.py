"""ExplanationOfBenefit (http://hl7.org/fhir/R4/explanationofbenefit.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "ExplanationOfBenefit",
    "billing",
    subjects=("patient",),
    inherits_labels_from=("claim", "facility", "prescription", "referral", "item.encounter"),
    member_references=("related.claim", "item.encounter"),
    hidden_status=frozenset({"draft", "entered-in-error"}),
    departments=("facility", "provider", "careTeam.provider", "item.location[x]"),
)
