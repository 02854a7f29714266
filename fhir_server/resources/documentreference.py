"""DocumentReference: notes, letters and directives (http://hl7.org/fhir/R4/documentreference.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "DocumentReference",
    "note",
    by_category={
        "42348-3": "endoflife",
        "92664-0": "endoflife",
        "64298-3": "endoflife",
        "51852-2": "letter",
        "clinical-note": "note",
    },
    subjects=("subject",),
    inherits_labels_from=("context.encounter", "context.related"),
    member_references=("relatesTo.target",),
    departments=("context.practiceSetting", "context.facilityType", "author", "authenticator", "custodian"),
)
