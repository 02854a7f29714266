"""The command ``fhir-server``.  Importing the modules of this package adds their subcommands."""

from fhir_server.cli import (
    audit,
    backup,
    clients,
    codes,
    copy_store,
    create_store,
    doctor,
    erase,
    keys,
    organizations,
    policy,
    providers,
    publishers,
    serve,
    store,
    token,
    users,
)
from fhir_server.cli.base import main

__all__ = [
    "audit",
    "backup",
    "clients",
    "codes",
    "copy_store",
    "create_store",
    "doctor",
    "erase",
    "keys",
    "main",
    "organizations",
    "policy",
    "providers",
    "publishers",
    "serve",
    "store",
    "token",
    "users",
]
