"""Consent: grants, restrictions and directives (http://hl7.org/fhir/R4/consent.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Consent",
    "consent",
    by_category={
        "restriction": "restriction",
        "acd": "endoflife",
        "dnr": "endoflife",
        "hcd": "endoflife",
        "polst": "endoflife",
        "42348-3": "endoflife",
    },
    by_status={"draft": "consent-ended", "proposed": "consent-ended", "rejected": "consent-ended", "inactive": "consent-ended"},
    subjects=("patient",),
    member_references=("source[x]", "provision.data.reference"),
)
