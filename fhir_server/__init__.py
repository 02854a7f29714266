"""FHIR R4 server whose answers are computed as if what the caller may not see had never been written."""

__version__ = "0.1.0"
