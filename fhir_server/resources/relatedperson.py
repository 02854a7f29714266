"""RelatedPerson: it belongs to the patient (http://hl7.org/fhir/R4/relatedperson.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "RelatedPerson",
    "related-person",
    subjects=("patient",),
)
