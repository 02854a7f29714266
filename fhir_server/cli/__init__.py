"""The command ``fhir-server``: importing the modules here adds their subcommands to it."""

from fhir_server.cli import data, organisations, people, serving
from fhir_server.cli.base import main

__all__ = ["data", "main", "organisations", "people", "serving"]
