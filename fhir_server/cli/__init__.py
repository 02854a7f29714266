"""The command ``fhir-server``: importing the modules here adds their subcommands to it."""

from fhir_server.cli import clients, copy_store, keys, organizations, providers, publishers, serve, store, users
from fhir_server.cli.base import main

__all__ = ["clients", "copy_store", "keys", "main", "organizations", "providers", "publishers", "serve", "store", "users"]
