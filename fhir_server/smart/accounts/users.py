"""User accounts.  Each belongs to one person, so the audit log names a person and not a group."""

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

_LOCK_TIMEOUT = 10.0  # seconds that a change of an account waits for another change


class User(msgspec.Struct, frozen=True):
    """An account.

    ``subject``          stable opaque identifier for apps (OpenID ``sub``)
    ``password_hash``    argon2id
    ``password_set_at``  when the password was set, in microseconds; 0 if unknown
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
        """Return the account's user as access decisions see it."""
        return Person(self.role, self.patient, self.practitioner, frozenset(self.related_persons), self.name)


_users = Register("user", User)
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)  # OWASP's argon2id floor, 20 ms


def canonical(username: str) -> str:
    """Return the stored form of a user name: NFKC, case-folded, without surrounding space."""
    return unicodedata.normalize("NFKC", username).casefold().strip()


async def find(store: Store, username: str) -> User | None:
    """Return the account of this user name, also if it is disabled."""
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
    """Create an account.  Raises ValueError, with a message for the operator, for a taken name or a rejected password."""
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
    """Store a changed account and end its sessions.  Its tokens apply to the changed account from the next request on."""
    await _users.save(store, user.username, user)
    await store.key_values.delete_family(session_family(user.username))


async def wait_until_saved(store: Store, username: str) -> User | None:
    """Wait for running changes of the account, then return it.  Raises TimeoutError after ten seconds."""
    async with _locked(store, canonical(username)):
        return await find(store, username)


async def link(store: Store, username: str, related_person: str) -> User:
    """Add a RelatedPerson to the account.  Concurrent calls do not overwrite each other.

    Raises LookupError if the account does not exist or is disabled, TimeoutError if other changes take ten seconds.
    """
    key = canonical(username)
    async with _locked(store, key):
        user = await find(store, key)
        if user is None or user.disabled:
            raise LookupError(key)
        if related_person in user.related_persons:
            return user
        changed = msgspec.structs.replace(user, related_persons=(*user.related_persons, related_person))
        await save(store, changed)
        return changed


@asynccontextmanager
async def _locked(store: Store, username: str) -> AsyncIterator[None]:
    """Hold the lock for changes of this account, across all processes on this store.  Raises TimeoutError after ten seconds."""
    name, values = digest(username), store.key_values
    with anyio.fail_after(_LOCK_TIMEOUT):
        while not await values.put_if_absent("changing-account", name, b"", values.now() + MINUTE):
            await anyio.sleep(0.01)
    try:
        yield
    finally:
        await values.pop("changing-account", name, 0)


async def remove(store: Store, username: str, now: int) -> bool:
    """Delete an account and end its sessions and tokens.  False if there was none.

    Holds the account's lock, so a concurrent change (a new password, a redeemed activation code) cannot restore the account.
    Raises TimeoutError if other changes take ten seconds.
    """
    key = canonical(username)
    async with _locked(store, key):
        user = await find(store, key)
        removed = await _users.remove(store, key)
        for family in (session_family(key), *([second_factor_family(user), account_family(user)] if user else [])):
            await store.key_values.delete_family(family)
        await revoke_where(store, lambda token_grant: token_grant.username == key, now)
    return removed


def session_family(username: str) -> str:
    """Return the key family of the account's sessions in the key-value store."""
    return f"user:{digest(username)}"


def second_factor_family(user: User) -> str:
    """Return the key family of the account's second factor.  The subject keeps it apart from a later account of the same name."""
    return f"second:{digest(user.subject)}"


def account_family(user: User) -> str:
    """Return the key family of other records about the account, by its subject."""
    return f"account:{digest(user.subject)}"


async def set_password(store: Store, user: User, password: str, rules: PasswordRules, now: int) -> User:
    """Set the account's password and end its sessions.  Raises ValueError as :func:`hash_password` does."""
    return await save_password_hash(store, user, await hash_password(password, rules, (user.username, user.name)), now)


async def save_password_hash(store: Store, user: User, hashed: str, now: int) -> User:
    """Set the account's password, already hashed, and end its sessions.  Raises ValueError if the account was closed."""
    async with _locked(store, user.username):
        current = await find(store, user.username)
        if current is None or current.disabled or current.subject != user.subject:
            raise ValueError("The account has been closed.")
        changed = msgspec.structs.replace(current, password_hash=hashed, password_set_at=now)
        await save(store, changed)
    return changed


async def hash_password(password: str, rules: PasswordRules, names: tuple[str, ...]) -> str:
    """Return the argon2id hash of a password.  Raises ValueError, with a message for the user, if ``rules`` reject it."""

    def check_and_hash() -> str:
        rules.check(password, names)
        return _hasher.hash(password)

    return await anyio.to_thread.run_sync(check_and_hash)


async def matches_password(user: User | None, password: str) -> bool:
    """Whether this is the account's password.  Takes as long for an unknown or disabled account, which never matches."""
    can_match = user is not None and not user.disabled
    hashed = user.password_hash if user is not None and can_match else _dummy_hash()
    return await anyio.to_thread.run_sync(_verify, hashed, password) and can_match


@functools.cache
def _dummy_hash() -> str:
    return _hasher.hash(new_secret())


def _verify(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
