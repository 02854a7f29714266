"""Registrations (people's accounts, clients) as typed records among the store's secrets, kept until removed.

Every change raises the store's ``security`` counter *after* it is kept, so that a cached token check made
before it cannot outlive it.
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
    """All records of one ``kind``, by name."""

    kind: str
    shape: type[R]

    async def find(self, store: Store, name: str) -> R | None:
        text = await store.key_values.get(self.kind, name, 0)
        return None if text is None else msgspec.json.decode(text, type=self.shape)

    async def all(self, store: Store) -> tuple[R, ...]:
        kept = await store.key_values.list_all(self.kind, 0)
        return tuple(msgspec.json.decode(text, type=self.shape) for _, text in sorted(kept))

    async def save(self, store: Store, name: str, record: R) -> None:
        await store.key_values.put(self.kind, name, msgspec.json.encode(record), MAX_INSTANT)
        await store.write(_bump)

    async def remove(self, store: Store, name: str) -> bool:
        """Whether there was one to remove."""
        gone = await store.key_values.pop(self.kind, name, 0) is not None
        await store.write(_bump)
        return gone


async def _bump(transaction: Transaction) -> None:
    await transaction.advance_epoch(None)
