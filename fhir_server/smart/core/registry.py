"""Typed records in the store's key-value table, without expiry: accounts, clients, identity providers and others.

Every change advances the permission epoch *after* it is stored, so that permissions cached before the change become
invalid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.store import Store, Transaction

R = TypeVar("R", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Register(Generic[R]):
    """All records of one ``kind``, by name.  ``record_type`` is the Struct that a record is decoded as."""

    kind: str
    record_type: type[R]

    async def find(self, store: Store, name: str) -> R | None:
        """The record, or None."""
        text = await store.key_values.get(self.kind, name, 0)
        return None if text is None else msgspec.json.decode(text, type=self.record_type)

    async def list_all(self, store: Store) -> tuple[R, ...]:
        """All records, ordered by name."""
        rows = await store.key_values.list_all(self.kind, 0)
        return tuple(msgspec.json.decode(text, type=self.record_type) for _, text in sorted(rows))

    async def list_page(self, store: Store, skip: int, limit: int) -> tuple[int, tuple[R, ...]]:
        """The number of records, and at most ``limit`` of them after the first ``skip``, ordered by name."""
        count, rows = await store.key_values.list_page(self.kind, 0, skip, limit)
        return count, tuple(msgspec.json.decode(text, type=self.record_type) for _, text in rows)

    async def save(self, store: Store, name: str, record: R) -> None:
        """Add the record, or replace the one with this name."""
        await store.key_values.put(self.kind, name, msgspec.json.encode(record), MAX_INSTANT)
        await store.write(_advance_epoch)

    async def remove(self, store: Store, name: str) -> bool:
        """Remove the record.  False if there was none."""
        existed = await store.key_values.pop(self.kind, name, 0) is not None
        await store.write(_advance_epoch)
        return existed


async def _advance_epoch(transaction: Transaction) -> None:
    await transaction.advance_epoch(None)
