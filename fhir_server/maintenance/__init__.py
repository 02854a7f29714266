"""Whole files in and out: the loader behind ``fhir-server load`` and the exporter behind ``fhir-server export``."""
