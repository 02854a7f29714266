"""Opens every kind of store empty, for tests that run on all of them."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path

import fhir_server.store
from fhir_server.store import Store, open_store
from tests.mongo.shared_mongod import emptied_url

SCHEMES = tuple(
    module.name
    for module in pkgutil.iter_modules(fhir_server.store.__path__)
    if hasattr(import_module(f"fhir_server.store.{module.name}"), "connect")
)


def empty_url(scheme: str, folder: Path) -> str:
    """The URL of a store of this kind that holds nothing; for MongoDB always the same one."""
    if scheme == "memory":
        return "memory:"
    return f"sqlite:///{folder / 'store.sqlite'}" if scheme == "sqlite" else emptied_url()


def empty_store(scheme: str, folder: Path) -> Store:
    """An empty store of this kind."""
    return open_store(empty_url(scheme, folder))
