"""Changes of accounts by an administrator, and what ends with each of them, at once and in all processes on the store.

A change is a function from the account to the changed account.  What has to end follows from the two alone:

====================================  ==========================================================================
role changed, locked, renamed,        all sessions, all grants to apps with their tokens
another practitioner
role changed                          also the links to identity providers: they were checked for the former role
a resource of the person removed      the grants in which the person acts by this resource
anything but the names changed        all sessions
====================================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from fhir_server.smart.accounts import attempts, identity_providers, user_index, users
from fhir_server.smart.accounts.users import TakenNameError, User
from fhir_server.smart.core import grant_index
from fhir_server.smart.core.persons import Role
from fhir_server.store import Store

Change = Callable[[User], User]
BUSY: Final = "Another process is changing this account. Try again."


class UnknownUserError(ValueError):
    """There is no such account."""


class TakenReferenceError(ValueError):
    """The resource represents the person of another account."""


async def change(store: Store, username: str, alter: Change, now: int) -> tuple[User, User]:
    """Change an account, which may get another user name, and end what lost its basis.  Returns it as it was and as it is.

    ``alter`` sees the account as it is when its lock is held, and raises what the caller expects.  Raises UnknownUserError,
    TakenNameError and TakenReferenceError; TimeoutError if other changes take ten seconds.  Then nothing was changed.
    """
    found = await require(store, username)
    planned = alter(found)
    async with users.locked(store, found.username, planned.username):
        before = await require(store, found.username)
        after = alter(before)
        if after.username != planned.username:
            raise TimeoutError
        await require_unused(store, *sorted(after.references - before.references), subject=before.subject)
        if after == before:
            return before, before
        return before, await (_rename if after.username != before.username else apply)(store, before, after, now)


async def require(store: Store, username: str) -> User:
    """Return the account of this user name.  Raises UnknownUserError."""
    user = await users.find(store, username)
    if user is None:
        raise UnknownUserError(f"There is no user {username!r}.")
    return user


async def require_unused(store: Store, *references: str, subject: str = "") -> None:
    """Raise TakenReferenceError if a resource (``Type/id``) represents the person of an account with another subject."""
    for reference in references:
        other = await user_index.find(store, reference)
        if other is not None and other.subject != subject:
            raise TakenReferenceError(f"{reference} belongs to the account {other.username!r}: unlink it there, or merge the accounts.")


def with_links(user: User, *, patient: str | None, practitioner: str | None, related_persons: tuple[str, ...]) -> User:
    """Return the account with these resources.  Raises ValueError for resources that its role does not use."""
    if user.role != "patient" and (patient or related_persons):
        raise ValueError("A work account has no patient and no RelatedPerson: people use a personal account for records.")
    if user.role == "patient" and practitioner:
        raise ValueError("A personal account has no Practitioner: people use a work account for their work.")
    unique = tuple(dict.fromkeys(related_persons))
    return msgspec.structs.replace(user, patient=patient, practitioner=practitioner, related_persons=unique)


def with_role(user: User, role: Role, *, patient: str | None, practitioner: str | None, related_persons: tuple[str, ...]) -> User:
    """Return the account with another role and exactly these resources, so that none of the former role stays by accident."""
    changed = msgspec.structs.replace(user, role=role)
    return with_links(changed, patient=patient, practitioner=practitioner, related_persons=related_persons)


def with_name(user: User, name: str) -> User:
    """Return the account with another name to display, in all its forms.  Raises ValueError for one that cannot be displayed."""
    return msgspec.structs.replace(user, name=displayable(name), formatted="")


def displayable(name: str) -> str:
    """Return a name for pages.  Raises ValueError for one that cannot be displayed."""
    shown = " ".join(name.split())
    if not shown or not shown.isprintable() or len(shown) > users.MAX_NAME:
        raise ValueError(f"A name must have 1 to {users.MAX_NAME} printable characters.")
    return shown


async def unlock(store: Store, username: str, now: int) -> User:
    """Open a locked account, and forget failed attempts at its password and codes.  Grants and sessions that ended stay ended."""
    _, user = await change(store, username, lambda user: msgspec.structs.replace(user, disabled=False), now)
    await store.key_values.delete_family(attempts.family(user.username))
    return user


async def apply(store: Store, before: User, after: User, now: int) -> User:
    """Store a changed account, whose lock the caller holds, then end what has lost its basis.

    What is stored is enough for grants to be void, whatever fails afterwards.
    """
    changed = _next_generation(after) if _ends_all(before, after) else after
    if _only_names(before, changed):
        return await users.put(store, changed)
    changed = await users.save(store, changed)
    if before.role != after.role:
        await _unlink_identities(store, before)
    await grant_index.revoke(store, await grant_index.of_user(store, before.username, now), lambda grant: not changed.backs(grant))
    return changed


async def _rename(store: Store, before: User, after: User, now: int) -> User:
    """Store the account under its new user name, then remove it under the old one.  Finishes a rename that was interrupted."""
    other = await users.find(store, after.username)
    if other is not None and other.subject != before.subject:
        raise TakenNameError(f"There is already a user {after.username!r}.")
    since = other.named_at if other else await users.named_at(store, after.username)
    renamed = msgspec.structs.replace(_next_generation(after), owner=before.owner_name, named_at=since)
    renamed = await users.save(store, renamed)
    for identity in await identity_providers.list_linked_identities(store):
        if identity.subject == before.subject:
            await identity_providers.rename(store, identity, after.username)
    if before.role != after.role:
        await _unlink_identities(store, renamed)
    await users.give_up(store, before.username, now)
    return renamed


def _ends_all(before: User, after: User) -> bool:
    return before.role != after.role or before.practitioner != after.practitioner or (after.disabled and not before.disabled)


def _only_names(before: User, after: User) -> bool:
    return msgspec.structs.replace(after, name=before.name, formatted=before.formatted, external_id=before.external_id) == before


def _next_generation(user: User) -> User:
    return msgspec.structs.replace(user, generation=user.generation + 1)


async def _unlink_identities(store: Store, user: User) -> None:
    for identity in await identity_providers.list_linked_identities(store):
        if identity.subject == user.subject:
            await identity_providers.unlink(store, identity.issuer, identity.sub)
