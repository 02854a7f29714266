"""Finds accounts by what else identifies them: subject, external id, or a resource that represents the person.

Entries are written with each account.  Those of accounts of earlier versions are added at the first look-up.  An entry may be
out of date, so each answer is compared with the account.
"""

from __future__ import annotations

from typing import Final

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import INDEX, User
from fhir_server.store import Store

_COMPLETE: Final = "complete"  # no key of an account: those have a space or a slash


async def find_by_subject(store: Store, subject: str) -> User | None:
    """Return the account with this subject, or None."""
    return await find(store, f"subject {subject}")


async def find_by_external_id(store: Store, external_id: str) -> User | None:
    """Return the account with this external id, or None."""
    return await find(store, f"external {external_id}")


async def find(store: Store, key: str) -> User | None:
    """Return the account that has this key (:func:`users.index_keys`); None if there is none."""
    await _complete(store)
    username = await store.key_values.get(INDEX, key, 0)
    user = await users.find(store, username.decode()) if username is not None else None
    return user if user is not None and key in users.index_keys(user) else None


async def _complete(store: Store) -> None:
    if await store.key_values.get(INDEX, _COMPLETE, 0) is not None:
        return
    for user in await users.list_all(store):
        for key in users.index_keys(user):
            await store.key_values.put_if_absent(INDEX, key, user.username.encode(), MAX_INSTANT)
    await store.key_values.put(INDEX, _COMPLETE, b"", MAX_INSTANT)
