"""Opens an empty store of each kind, for tests that run on all stores."""

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
    """Return the URL of an empty store of this kind.  For MongoDB it is always the same URL."""
    if scheme == "memory":
        return "memory:"
    return f"sqlite:///{folder / 'store.sqlite'}" if scheme == "sqlite" else emptied_url()


def empty_store(scheme: str, folder: Path) -> Store:
    """Return an empty store of this kind."""
    return open_store(empty_url(scheme, folder))
