"""Specimen: what is known of its results is known of it (http://hl7.org/fhir/R4/specimen.html)."""

from dataclasses import replace

from fhir_server.resources import _default_declarations

TYPE = replace(
    _default_declarations.declaration("Specimen"),
    inherits_labels_from=("request", "parent"),
    inherits_from_referrers=("DiagnosticReport.specimen", "Observation.specimen"),
)
