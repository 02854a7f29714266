"""ExplanationOfBenefit (http://hl7.org/fhir/R4/explanationofbenefit.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "ExplanationOfBenefit",
    "billing",
    subjects=("patient",),
    inherits_labels_from=("claim", "facility", "prescription", "referral", "item.encounter"),
    label_codes=(
        "type",
        "subType",
        "diagnosis.diagnosis[x]",
        "procedure.procedure[x]",
        "supportingInfo.code",
        "item.productOrService",
        "item.revenue",
        "item.detail.productOrService",
        "item.detail.subDetail.productOrService",
        "addItem.productOrService",
        "addItem.detail.productOrService",
        "addItem.detail.subDetail.productOrService",
    ),
    member_references=("related.claim", "item.encounter"),
    hidden_status=frozenset({"draft", "entered-in-error"}),
    departments=("facility", "provider", "careTeam.provider", "item.location[x]"),
)
