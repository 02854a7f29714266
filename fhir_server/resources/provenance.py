"""Provenance: takes over patients and labels of its targets (http://hl7.org/fhir/R4/provenance.html)."""

from fhir_server.resources._declaration import ResourceType

TYPE = ResourceType(
    "Provenance",
    "provenance",
    subjects=("target",),
    inherits_labels_from=("location",),
    member_references=("entity.what",),
    depends_on=("target",),
)
