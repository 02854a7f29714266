"""``python -m fhir_server``: the command ``fhir-server``."""

from fhir_server.cli import main

main()
