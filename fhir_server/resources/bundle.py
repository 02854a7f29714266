"""Bundle, as a stored row: a document or collection kept whole (http://hl7.org/fhir/R4/bundle.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Bundle",
    "other",
)
