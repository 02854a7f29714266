"""The command ``fhir-server``: importing the modules here adds their subcommands to it."""

from fhir_server.cli import accounts, data, developers, keys, migrate, organisations, people, providers, serving
from fhir_server.cli.base import main

__all__ = ["accounts", "data", "developers", "keys", "main", "migrate", "organisations", "people", "providers", "serving"]
