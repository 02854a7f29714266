"""ExplanationOfBenefit (http://hl7.org/fhir/R4/explanationofbenefit.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "ExplanationOfBenefit",
    "billing",
    subjects=("patient",),
    inherits_labels_from=("claim", "facility", "prescription", "referral", "item.encounter"),
    member_references=(
        "related.claim",
        "item.encounter",
        "diagnosis.diagnosis[x]",
        "procedure.procedure[x]",
        "supportingInfo.value[x]",
    ),
    summaries=("total", "payment", "benefitBalance", "adjudication"),
    depends_on=("claim", "claimResponse"),
    hidden_status=frozenset({"draft"}),
    departments=("facility", "provider", "careTeam.provider", "item.location[x]"),
)
