"""Opens an empty store of each kind, for tests that run on all stores."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import fhir_server.store
from fhir_server.store import Store, open_store
from tests.mongo.shared_mongod import emptied_url

SCHEMES = tuple(
    module.name
    for module in pkgutil.iter_modules(fhir_server.store.__path__)
    if hasattr(import_module(f"fhir_server.store.{module.name}"), "connect")
)
SLOW = frozenset({"mongodb"})  # a comparison takes ten times as long as on the others


def quick_share(values: Iterable[int], quick: int) -> list[Any]:
    """Pairs of each store and each value, for the fixture ``run``.  Of a slow store only ``quick`` is tried by ``make test``."""
    return [
        pytest.param(scheme, value, marks=pytest.mark.slow if scheme in SLOW and value != quick else ())
        for value in values
        for scheme in SCHEMES
    ]


def empty_url(scheme: str, folder: Path) -> str:
    """Return the URL of an empty store of this kind.  For MongoDB it is always the same URL."""
    if scheme == "memory":
        return "memory:"
    return f"sqlite:///{folder / 'store.sqlite'}" if scheme == "sqlite" else emptied_url()


def empty_store(scheme: str, folder: Path) -> Store:
    """Return an empty store of this kind."""
    return open_store(empty_url(scheme, folder))
