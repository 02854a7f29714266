"""Stores: they hold resources, key-value records and logs.  :func:`open_store` opens one by its URL.

:mod:`~fhir_server.store.interface` has the protocols, :mod:`~fhir_server.store.rows` the types of rows.
"""

from __future__ import annotations

from importlib import import_module

from fhir_server.store.interface import KeyValueStore, Snapshot, Store, Transaction, system_now
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
    "open_store",
    "system_now",
]


def open_store(url: str) -> Store:
    """Open the store at ``url``.  The scheme names the module of this package that implements it.

    Raises ValueError for a scheme that no module implements.
    """
    scheme = url.partition(":")[0]
    name = f"fhir_server.store.{scheme.partition('+')[0]}"
    try:
        connect = getattr(import_module(name), "connect", None)
    except ModuleNotFoundError as error:
        if error.name not in (name, name.rpartition(".")[0]):
            raise  # the module exists, but a package that it needs does not
        connect = None
    if connect is None:
        raise ValueError(f"No store for URLs that start with {scheme!r}.")
    store: Store = connect(url)
    return store
