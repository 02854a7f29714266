"""FHIR R4 server that applies the consent policy inside every query: hidden data does not change any response."""

__version__ = "0.1.0"
