"""Bundle, stored as one resource, such as a document or a collection (http://hl7.org/fhir/R4/bundle.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Bundle",
    "other",
)
