"""The FHIR API: one module per interaction or operation.  Interactions read stored FHIR data only through a View."""
