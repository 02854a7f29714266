"""Search: the condition language of the stores, its meaning, and the parsing of FHIR searches to it."""
