"""Every store module there is, opened empty: what the suites that hold for all stores are parametrised over."""

from __future__ import annotations

import os
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

import fhir_server.store
from fhir_server.store import Store, open_store

SCHEMES = tuple(
    module.name
    for module in pkgutil.iter_modules(fhir_server.store.__path__)
    if hasattr(import_module(f"fhir_server.store.{module.name}"), "connect")
)


def empty_store(scheme: str, folder: Path) -> Store:
    """An empty store of this kind.  One that needs a server finds it in ``FHIR_SERVER_TEST_<SCHEME>``, or the test is skipped."""
    if scheme == "memory":
        return open_store("memory:")
    if scheme == "sqlite":
        return open_store(f"sqlite:///{folder / 'store.sqlite'}")
    url = os.environ.get(f"FHIR_SERVER_TEST_{scheme.upper()}")
    if url is None:
        pytest.skip(f"FHIR_SERVER_TEST_{scheme.upper()} does not name a server")
    return open_store(url.replace("{name}", folder.name))
