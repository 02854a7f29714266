"""Queues in the store of what has to be done at an instant: each kind of record is one.

A key begins with the instant at which the record is due, so the due ones are the first ones, and no others are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fhir_server.store import Store

_DIGITS: Final = 17  # of an instant in a key


def due_key(at: int, name: str) -> str:
    """The key of what is due at an instant, in microseconds."""
    return f"{at:0{_DIGITS}} {name}"


def name_of(key: str) -> str:
    """The name in a key."""
    return key.partition(" ")[2]


async def due_records(store: Store, kind: str, now: int, limit: int) -> Sequence[tuple[str, bytes]]:
    """Return key and value of the records that are due, the longest due first, at most ``limit``."""
    async with store.snapshot() as snapshot:
        first = await snapshot.records_unfiltered(kind, limit=limit)
    return [(key, text) for key, text in first if int(key[:_DIGITS]) <= now]
