"""Accounts: one per person, never shared (so that an audit trail names who it was)."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from fhir_server.smart.core.context import MINUTE, digest, new_secret
from fhir_server.smart.core.password_rules import DEFAULT_RULES, PasswordRules
from fhir_server.smart.core.persons import Person, Role
from fhir_server.smart.core.registry import Register
from fhir_server.smart.core.token_grants import revoke_where
from fhir_server.store import Store

_PATIENCE = 10.0  # seconds that a change of an account waits for another


class User(msgspec.Struct, frozen=True):
    """An account.  ``subject`` is the stable opaque name under which apps know it (OpenID ``sub``).

    ``password`` is argon2id, ``since`` when it was chosen, in microseconds (0: not known).
    """

    username: str
    name: str
    role: Role
    password_hash: str = msgspec.field(name="password")
    subject: str
    patient: str | None = None
    practitioner: str | None = None
    related_persons: tuple[str, ...] = ()
    disabled: bool = False
    password_set_at: int = msgspec.field(default=0, name="since")

    def person(self) -> Person:
        return Person(self.role, self.patient, self.practitioner, frozenset(self.related_persons), self.name)


_users = Register("user", User)
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)  # OWASP's argon2id floor, 20 ms


def canonical(username: str) -> str:
    """The spelling under which a user name is kept: what looks alike is one account."""
    return unicodedata.normalize("NFKC", username).casefold().strip()


async def find(store: Store, username: str) -> User | None:
    """The account, disabled or not."""
    return await _users.find(store, canonical(username))


async def list_all(store: Store) -> tuple[User, ...]:
    return await _users.list_all(store)


async def create(
    store: Store,
    username: str,
    password: str,
    role: Role,
    *,
    name: str = "",
    patient: str | None = None,
    practitioner: str | None = None,
    related_persons: tuple[str, ...] = (),
    rules: PasswordRules = DEFAULT_RULES,
) -> User:
    """Open an account.  Raises ValueError, worded for the operator, if the name is taken or the password will not do."""
    key = canonical(username)
    if not key or not key.isprintable():
        raise ValueError("A user name must have at least one printable character.")
    if await _users.find(store, key):
        raise ValueError(f"There is already a user {key!r}.")
    hashed = await hash_password(password, rules, (key, name))
    user = User(key, name or username, role, hashed, new_secret(), patient, practitioner, related_persons)
    await save(store, user)
    return user


async def save(store: Store, user: User) -> None:
    """Keep a changed account and end its open sessions; its tokens mean the changed account from the next request on."""
    await _users.save(store, user.username, user)
    await store.key_values.delete_family(session_family(user.username))


async def wait_until_saved(store: Store, username: str) -> User | None:
    """The account, once nobody is changing it.  Raises TimeoutError if others keep changing it."""
    async with _alone(store, canonical(username)):
        return await find(store, username)


async def link(store: Store, username: str, related_person: str) -> User:
    """Add a RelatedPerson to those that this account is.  Of several links made at once none is lost.

    Raises LookupError for an account that is not there or is closed, TimeoutError if others keep changing it.
    """
    key = canonical(username)
    async with _alone(store, key):
        user = await find(store, key)
        if user is None or user.disabled:
            raise LookupError(key)
        if related_person in user.related_persons:
            return user
        changed = msgspec.structs.replace(user, related_persons=(*user.related_persons, related_person))
        await save(store, changed)
        return changed


@asynccontextmanager
async def _alone(store: Store, username: str) -> AsyncIterator[None]:
    """The only one, of all processes on this store, who is changing this account."""
    name, secrets = digest(username), store.key_values
    with anyio.fail_after(_PATIENCE):
        while not await secrets.put_if_absent("changing-account", name, b"", secrets.now() + MINUTE):
            await anyio.sleep(0.01)
    try:
        yield
    finally:
        await secrets.pop("changing-account", name, 0)


async def remove(store: Store, username: str, now: int) -> bool:
    """Close an account, with its sessions and tokens; False if there was none.

    Alone, so that a change under way (a new password, a grant taken up) cannot put the account back.  Raises TimeoutError if
    others keep changing it.
    """
    key = canonical(username)
    async with _alone(store, key):
        user = await find(store, key)
        gone = await _users.remove(store, key)
        for family in (session_family(key), *([second_family(user), account_family(user)] if user else [])):
            await store.key_values.delete_family(family)
        await revoke_where(store, lambda token_grant: token_grant.username == key, now)
    return gone


def session_family(username: str) -> str:
    """The family of an account's sessions among the store's secrets."""
    return f"user:{digest(username)}"


def second_family(user: User) -> str:
    """The family of an account's second factor; by its subject, which no later account of the name shares."""
    return f"second:{digest(user.subject)}"


def account_family(user: User) -> str:
    """The family of what else is kept about an account; by its subject likewise."""
    return f"account:{digest(user.subject)}"


async def set_password(store: Store, user: User, password: str, rules: PasswordRules, now: int) -> User:
    """Give the account another password; its sessions end.  Raises ValueError as :func:`hash_password` does."""
    return await keep_password(store, user, await hash_password(password, rules, (user.username, user.name)), now)


async def keep_password(store: Store, user: User, hashed: str, now: int) -> User:
    """As :func:`set_password`, of a password that has been hashed."""
    async with _alone(store, user.username):
        current = await find(store, user.username)
        if current is None or current.disabled or current.subject != user.subject:
            raise ValueError("The account has been closed.")
        changed = msgspec.structs.replace(current, password_hash=hashed, password_set_at=now)
        await save(store, changed)
    return changed


async def hash_password(password: str, rules: PasswordRules, names: tuple[str, ...]) -> str:
    """argon2id of a password.  Raises ValueError, worded for whoever chose it, for one that will not do (``passwords``)."""

    def hashed() -> str:
        rules.check(password, names)
        return _hasher.hash(password)

    return await anyio.to_thread.run_sync(hashed)


async def password_fits(user: User | None, password: str) -> bool:
    """Whether this is the account's password; takes as long for an unknown or disabled account, then says no."""
    known = user is not None and not user.disabled
    hashed = user.password_hash if user is not None and known else _nobody()
    return await anyio.to_thread.run_sync(_verify, hashed, password) and known


@functools.cache
def _nobody() -> str:
    return _hasher.hash(new_secret())


def _verify(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
