"""Profiles: StructureDefinitions that constrain a type (http://hl7.org/fhir/R4/profiling.html), and whether a resource meets them."""
