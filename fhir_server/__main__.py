"""``python -m fhir_server`` runs the command ``fhir-server``."""

from fhir_server.cli import main

main()
