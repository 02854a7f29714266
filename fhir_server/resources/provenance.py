"""Provenance: makes no sense without every row it speaks of (http://hl7.org/fhir/R4/provenance.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Provenance",
    "provenance",
    subjects=("target",),
    context=("location",),
    coded=("reason", "activity"),
    members=("entity.what",),
    required=("target",),
)
