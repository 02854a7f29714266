"""Ends sessions: the one place, so that with a session always ends what depends on it, and its clients are always told.

Both deletions advance the permission epoch, so that no server process goes on with what it remembers of tokens that end with a session.
"""

from __future__ import annotations

from fhir_server.smart.core import logout_queue
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.token_grants import SESSION, SESSION_SEEN
from fhir_server.store import Store


def account_family(username: str) -> str:
    """Return the key family of what ends with all sessions of an account: the sessions, and sign-ins and offers in progress."""
    return f"user:{digest(username)}"


def family(key: str) -> str:
    """Return the key family of what ends with one session."""
    return f"session:{key}"


async def end_all(store: Store, username: str) -> None:
    """End all sessions of an account."""
    values = store.key_values
    ended = [key for key, _ in await values.list_family(SESSION, account_family(username), values.now())]
    await values.delete_family(account_family(username))
    for key in ended:
        await logout_queue.end(store, key)


async def end(store: Store, key: str) -> None:
    """End the session of this key."""
    await store.key_values.delete_family(family(key))
    for kind in (SESSION, SESSION_SEEN):  # a session of an earlier version is of the account's family only
        await store.key_values.pop(kind, key, store.key_values.now())
    await logout_queue.end(store, key)
