"""Protocols for copying one whole store into another (``fhir-server copy-store``), without policy or visibility.

The module ``<scheme>.copying`` of a store that can be copied from has ``copy_source(store)``; that of a store that can
be copied into has ``copy_target(store)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import msgspec

from fhir_server.store.interface import Store
from fhir_server.store.rows import IndexedRow


class Version(msgspec.Struct, frozen=True):
    """A version and when it was stored: a number of which only the order matters (:mod:`~fhir_server.store.row_order`)."""

    indexed: IndexedRow
    stored: int


class ResourceHistory(msgspec.Struct, frozen=True):
    """All versions of one resource, oldest first."""

    type: str
    id: str
    versions: tuple[Version, ...]


class KeyValue(msgspec.Struct, frozen=True):
    """A record of the key-value store: the arguments of :meth:`fhir_server.store.KeyValueStore.put`."""

    kind: str
    key: str
    value: bytes
    expires: int
    family: str


class CopySource(Protocol):
    """A store as a series of pages.  ``after`` is the key of the last item of the page before, "" for the first page."""

    async def classes(self) -> tuple[str, ...]:
        """Return the keys of all visibility classes, in the order of their ids."""

    async def histories(self, after: tuple[str, str], limit: int) -> tuple[ResourceHistory, ...]:
        """Return at most ``limit`` resources in the order of (type, id), starting after ``after``; () at the end."""

    async def large_resources(self, least: int) -> tuple[tuple[str, str], ...]:
        """Return (type, id) of the resources of which some version has a body of at least so many bytes, in that order."""

    async def history(self, type: str, id: str) -> ResourceHistory:
        """Return all versions of one resource."""

    async def key_values(self, after: tuple[str, str], limit: int) -> tuple[KeyValue, ...]:
        """Return at most ``limit`` key-value records in the order of (kind, key), starting after ``after``; () at the end."""

    async def log_names(self) -> tuple[str, ...]:
        """Return the names of all logs."""

    async def log_lines(self, log: str, after: int, limit: int) -> tuple[tuple[int, bytes], ...]:
        """Return at most ``limit`` lines of a log with their numbers, starting after number ``after``."""

    async def count(self) -> int:
        """Return the number of resources, including deleted ones.  For progress display."""


class CopyTarget(CopySource, Protocol):
    """A store that is being filled.  Every method may be repeated with the same arguments without further effect.

    ``unlimited``: versions with smaller bodies than this always fit.
    """

    unlimited: int

    def does_not_fit(self, history: ResourceHistory) -> tuple[int, ...]:
        """Return the numbers of the versions that the store cannot keep."""

    async def begin(self, source: str) -> tuple[str, str]:
        """Prepare for a copy of ``source``; return how far an interrupted copy of it got, ("", "") for a new one.

        Raises ValueError if the store holds anything else.
        """

    async def put_classes(self, keys: tuple[str, ...]) -> None:
        """Store the visibility classes with these keys, in this order."""

    async def put_histories(self, histories: Sequence[ResourceHistory]) -> None:
        """Store these resources durably, and record how far the copy is."""

    async def put_key_values(self, records: Sequence[KeyValue]) -> None:
        """Store these key-value records."""

    async def put_log_lines(self, log: str, lines: Sequence[tuple[int, bytes, tuple[str, ...]]]) -> None:
        """Store these lines of a log under their numbers, with the keys of their entries."""

    async def finish(self) -> None:
        """Mark the copy as complete, so that servers may use the store."""


def copy_source(scheme: str, store: Store) -> CopySource:
    """Return the store as a source to copy from.  Raises ValueError if it cannot be one."""
    source: CopySource = _adapter(scheme, "copy_source", store)
    return source


def copy_target(scheme: str, store: Store) -> CopyTarget:
    """Return the store as a target to copy into.  Raises ValueError if it cannot be one."""
    target: CopyTarget = _adapter(scheme, "copy_target", store)
    return target


def _adapter(scheme: str, function: str, store: Store) -> Any:
    name = f"fhir_server.store.{scheme.partition('+')[0]}.copying"
    try:
        adapt = getattr(import_module(name), function, None)
    except ModuleNotFoundError:
        adapt = None
    if adapt is None:
        raise ValueError(f"A store of {scheme!r} cannot be the {function.removeprefix('copy_')} of a copy.")
    return adapt(store)
