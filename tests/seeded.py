"""Stores with the seed records that are copied, not loaded: loading them into MongoDB takes as long as hundreds of requests.

A test that changes how resources are stored has to load them (:class:`tests.served.Served`).  If it changes this while it runs and wants
copies of what the right code stored, it makes one first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tests.served import NOON, Served
from tests.store_copies import copy_of

# By the kind of store, the instant to which the records are shifted, and the settings under which they were stored.
_states: dict[tuple[str, str, str], Any] = {}
_copies: dict[tuple[str, str, str], Callable[[str], None]] = {}


def seeded(store: str = "memory:", *, at: str = NOON, **settings: Any) -> Served:
    """A server on a new store, with the seed records as the first such server of this process loaded them."""
    kind = store.partition(":")[0], at, repr(sorted(settings.items()))
    if store == "memory:":
        if kind not in _states:
            _states[kind] = Served(at=at, **settings).parts.store.state  # type: ignore[attr-defined]
        served = Served(at=at, seeds=False, **settings)
        served.parts.store.state = _states[kind].copy()  # type: ignore[attr-defined]
        return served
    if kind not in _copies:
        Served(store, at=at, **settings).close()
        _copies[kind] = copy_of(store)
    else:
        _copies[kind](store)
    return Served(store, at=at, seeds=False, **settings)


def seeded_with(rows: Iterable[dict[str, Any]]) -> Served:
    """A server in memory with the seed records and these new ones, which a feed stored."""
    server = seeded()
    for row in rows:
        answer = server.request(server.token(), "PUT", f"{row['resourceType']}/{row['id']}", body=row)
        assert answer.status == 201, answer.json
    return server
