"""FHIR packages (https://hl7.org/fhir/packages.html): definitions that an operator loads, and that clients read and do not write."""
