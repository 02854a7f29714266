"""Claim: its line items may have sensitive codes (http://hl7.org/fhir/R4/claim.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Claim",
    "billing",
    subjects=("patient",),
    inherits_labels_from=("facility", "prescription", "referral", "item.encounter"),
    member_references=(
        "related.claim",
        "item.encounter",
        "diagnosis.diagnosis[x]",
        "procedure.procedure[x]",
        "supportingInfo.value[x]",
    ),
    summaries=("total",),
    hidden_status=frozenset({"draft"}),
    departments=("facility", "provider", "careTeam.provider", "item.location[x]"),
)
