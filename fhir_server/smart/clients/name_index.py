"""Finds the clients whose names may be taken for another one, without reading all clients.

Each client has an entry for each form of its name (:func:`~fhir_server.smart.clients.names.keys`), written with it.  Those of clients
of earlier versions, or of earlier rules for what looks alike, are added at the first look-up.  An entry may be out of date, so whoever
looks one up compares the client's name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.clients import names
from fhir_server.smart.core.context import digest
from fhir_server.store import Store

_KIND: Final = "client-name"
_RULES: Final = "1"  # to be changed with the rules of skeletons
_COMPLETE: Final = f"complete {_RULES}"  # no key of an entry: those begin with a digest

Listed = Callable[[Store], Awaitable[Iterable[tuple[str, str]]]]
"""Returns (client id, name) of all clients."""


async def add(store: Store, client_id: str, name: str) -> None:
    """Let a client be found by its name.  Before the client is stored: then none is without its entries."""
    for form in names.keys(name):
        await store.key_values.put(_KIND, _key(form, client_id), client_id.encode(), MAX_INSTANT, _family(form))


async def remove(store: Store, client_id: str, name: str, *, but: str = "") -> None:
    """Remove the entries of a name that a client no longer has, except those that its new name ``but`` has, too."""
    for form in names.keys(name) - names.keys(but):
        await store.key_values.pop(_KIND, _key(form, client_id), 0)


async def similar(store: Store, name: str, listed: Listed) -> frozenset[str]:
    """Return the ids of clients whose names may look like ``name``; some may not, or be gone."""
    await _complete(store, listed)
    found: set[str] = set()
    for form in names.similar_keys(name):
        found |= {client_id.decode() for _, client_id in await store.key_values.list_family(_KIND, _family(form), 0)}
    return frozenset(found)


async def _complete(store: Store, listed: Listed) -> None:
    if await store.key_values.get(_KIND, _COMPLETE, 0) is not None:
        return
    for client_id, name in await listed(store):
        await add(store, client_id, name)
    await store.key_values.put(_KIND, _COMPLETE, b"", MAX_INSTANT)


def _key(form: str, client_id: str) -> str:
    return f"{digest(form)} {client_id}"


def _family(form: str) -> str:
    return f"client name {digest(form)}"
