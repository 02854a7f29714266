"""Stores: they hold resources, key-value records and logs.  :func:`open_store` opens one by its URL.

:mod:`~fhir_server.store.interface` has the protocols, :mod:`~fhir_server.store.rows` the types of rows.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from fhir_server.store.interface import KeyValueRecord, KeyValueStore, Snapshot, Store, Transaction, system_now
from fhir_server.store.logs import LinkEntries, LogEntry
from fhir_server.store.rows import (
    GuardedReference,
    IndexedRow,
    LabeledElement,
    Page,
    PermissionEpoch,
    Row,
)
from fhir_server.store.version_history import VersionDigest, VersionHistory, VersionStamp

__all__ = [
    "GuardedReference",
    "IndexedRow",
    "KeyValueRecord",
    "KeyValueStore",
    "LabeledElement",
    "LinkEntries",
    "LogEntry",
    "Page",
    "PermissionEpoch",
    "Row",
    "Snapshot",
    "Store",
    "Transaction",
    "VersionDigest",
    "VersionHistory",
    "VersionStamp",
    "explain_failure",
    "open_store",
    "system_now",
]


def open_store(url: str) -> Store:
    """Open the store at ``url``, and create it if it does not exist.

    The scheme names the module of this package that implements it.  :func:`fhir_server.store.inspection.inspect` opens a store
    without creating or changing anything.  Raises ValueError for a scheme that no module implements.
    """
    store: Store = _implementation(url).connect(url)
    return store


def explain_failure(url: str, error: Exception) -> str | None:
    """Return the sentence for the operator about a failure of the store at ``url``; None if ``error`` is not one."""
    explain = getattr(_implementation(url), "explain_failure", None)
    return explain(error) if explain else None


def _implementation(url: str) -> ModuleType:
    scheme = url.partition(":")[0]
    name = f"fhir_server.store.{scheme.partition('+')[0]}"
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (name, name.rpartition(".")[0]):
            raise  # the module exists, but a package that it needs does not
        module = None
    if module is None or not hasattr(module, "connect"):
        raise ValueError(f"No store for URLs that start with {scheme!r}.")
    return module
