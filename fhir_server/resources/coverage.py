"""Coverage: it belongs to the insured patient, not to the payer (http://hl7.org/fhir/R4/coverage.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Coverage",
    "coverage",
    subjects=("beneficiary",),
)
