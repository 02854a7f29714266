"""What a whole store is made of, for copying one into another (``fhir-server migrate``): no policy, no sights.

A store that can be copied from has a module ``<scheme>_moving`` beside it with ``origin(store)``, one that can be copied
into with ``destination(store)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import msgspec

from fhir_server.store import IndexedRow, Store


class Version(msgspec.Struct, frozen=True):
    """A version and when it was stored: numbers of which only the order means anything (:mod:`~fhir_server.store.row_order`)."""

    record: IndexedRow
    stored: int


class ResourceHistory(msgspec.Struct, frozen=True):
    """All versions of one resource, oldest first."""

    type: str
    id: str
    versions: tuple[Version, ...]


class KeyValue(msgspec.Struct, frozen=True):
    """As :meth:`fhir_server.store.KeyValueStore.replace` takes it."""

    kind: str
    key: str
    value: bytes
    expires: int
    family: str


class CopySource(Protocol):
    """A store as a series of pages; each page starts behind the last item of the one before."""

    async def classes(self) -> tuple[str, ...]: ...

    async def histories(self, after: tuple[str, str], limit: int) -> tuple[ResourceHistory, ...]:
        """At most ``limit`` resources in the order of (type, id), from behind ``after`` on; none: there are no more."""

    async def key_values(self, after: tuple[str, str], limit: int) -> tuple[KeyValue, ...]:
        """The same of secrets, in the order of (kind, key)."""

    async def journals(self) -> tuple[str, ...]:
        """The names of all journals."""

    async def lines(self, journal: str, after: int, limit: int) -> tuple[tuple[int, bytes], ...]:
        """At most ``limit`` lines of a journal, each with its number, from behind ``after`` on."""

    async def count(self) -> int:
        """How many resources there are, deleted ones too; for showing progress."""


class CopyTarget(CopySource, Protocol):
    """A store that is being filled.  Everything may be done twice with the outcome of once."""

    async def begin(self, source: str) -> tuple[str, str]:
        """Make ready for a copy of ``source``; where the copy got to before, if it was broken off.

        Raises ValueError if the store holds anything else.
        """

    async def put_classes(self, keys: tuple[str, ...]) -> None: ...

    async def put_histories(self, lives: Sequence[ResourceHistory]) -> None:
        """Keep these, durably, and remember how far the copy is."""

    async def put_key_values(self, secrets: Sequence[KeyValue]) -> None: ...

    async def put_lines(self, journal: str, lines: Sequence[tuple[int, bytes]]) -> None: ...

    async def finish(self) -> None:
        """From now on the store may be used."""


def copy_source(scheme: str, store: Store) -> CopySource:
    """The store to be copied from.  Raises ValueError for one that cannot be."""
    made: CopySource = _side(scheme, "origin", store)
    return made


def copy_target(scheme: str, store: Store) -> CopyTarget:
    """The store to be copied into.  Raises ValueError for one that cannot be."""
    made: CopyTarget = _side(scheme, "destination", store)
    return made


def _side(scheme: str, side: str, store: Store) -> Any:
    name = f"fhir_server.store.{scheme.partition('+')[0]}.copying"
    try:
        make = getattr(import_module(name), side, None)
    except ModuleNotFoundError:
        make = None
    if make is None:
        raise ValueError(f"A store of {scheme!r} cannot be the {side} of a migration.")
    return make(store)
