"""User accounts.  Each belongs to one person, so the audit log names a person and not a group."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import anyio
import anyio.to_thread
import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.core import grant_index, session_ends
from fhir_server.smart.core.context import MINUTE, digest, new_secret
from fhir_server.smart.core.password_rules import DEFAULT_RULES, PasswordRules
from fhir_server.smart.core.persons import Person, Role, references
from fhir_server.smart.core.registry import Register
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.store import Store

_LOCK_TIMEOUT = 10.0  # seconds that a change of an account waits for another change
MAX_NAME: Final = 200  # characters of a user name, and of a name to display
INDEX: Final = "user-index"  # user names by what else identifies an account (index_keys)
_FORMER: Final = "former-user"  # user names that an account has given up


class User(msgspec.Struct, frozen=True):
    """An account.

    ``subject``          stable opaque identifier for apps (OpenID ``sub``)
    ``password_hash``    argon2id
    ``password_set_at``  when the password was set, in microseconds; 0 if unknown
    ``generation``       grants to apps of an earlier generation are void: the role changed, or the account was locked or renamed
    ``owner``            what owns apps' data and exports of this person, for good; "" for an account of an earlier version
    ``named_at``         when the account took a user name that another account had before, in microseconds; 0 if none had it
    ``formatted``        the name in another form (SCIM ``name.formatted``); "" if it is ``name``
    ``external_id``      the id that an identity management system gave the account (SCIM ``externalId``)
    ``created``, ``changed``  in microseconds; 0 if unknown
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
    generation: int = 0
    owner: str = ""
    named_at: int = 0
    formatted: str = ""
    external_id: str = ""
    created: int = 0
    changed: int = 0

    @property
    def owner_name(self) -> str:
        """What owns apps' data and exports of this person: no later account of the same user name has it."""
        return self.owner or self.username

    @property
    def references(self) -> frozenset[str]:
        """``Type/id`` of every resource that represents the person."""
        return references(self.person())

    def backs(self, grant: TokenGrant) -> bool:
        """Whether a grant of this person to an app still has its basis.

        It has none if the account is locked, if its role or user name has changed since, or if the resource by which the person
        acts in the grant (a parent's RelatedPerson) is no longer the account's.
        """
        named = grant.fhir_user is None or grant.fhir_user in self.references
        return not self.disabled and grant.generation == self.generation and named

    def person(self) -> Person:
        """Return the account's user as access decisions see it."""
        return Person(self.role, self.patient, self.practitioner, frozenset(self.related_persons), self.name)


_users = Register("user", User)
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)  # OWASP's argon2id floor, 20 ms


class TakenNameError(ValueError):
    """The user name belongs to another account."""


def new_name(username: str) -> str:
    """Return the canonical form of a user name for an account.  Raises ValueError if it cannot be one."""
    key = canonical(username)
    if not key or not key.isprintable() or len(key) > MAX_NAME:
        raise ValueError(f"A user name must have 1 to {MAX_NAME} printable characters.")
    return key


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
    formatted: str = "",
    external_id: str = "",
    disabled: bool = False,
    rules: PasswordRules = DEFAULT_RULES,
) -> User:
    """Create an account.  Raises ValueError, with a message for the operator, for a taken name or a rejected password."""
    key = new_name(username)
    if await _users.find(store, key):
        raise TakenNameError(f"There is already a user {key!r}.")
    hashed = await hash_password(password, rules, (key, name))
    subject, now = new_secret(), store.key_values.now()
    user = User(
        key, name or username, role, hashed, subject, patient, practitioner, related_persons, disabled,
        owner=subject, formatted=formatted, external_id=external_id, created=now,
    )  # fmt: skip
    async with locked(store, key):
        if await _users.find(store, key):
            raise TakenNameError(f"There is already a user {key!r}.")
        return await save(store, msgspec.structs.replace(user, named_at=await named_at(store, key)))


async def save(store: Store, user: User) -> User:
    """Store a changed account and end its sessions.  Its tokens apply to the changed account from the next request on.

    Returns the account as it is stored.
    """
    stored = await put(store, user)
    await session_ends.end_all(store, user.username)
    return stored


async def put(store: Store, user: User) -> User:
    """Store an account and keep its sessions.  Returns it as it is stored."""
    stored = msgspec.structs.replace(user, changed=store.key_values.now())
    await _users.save(store, user.username, stored)
    for key in index_keys(stored):
        await index(store, key, stored)
    return stored


async def index(store: Store, key: str, user: User) -> None:
    """Let an account be found by a key."""
    await store.key_values.put(INDEX, key, user.username.encode(), MAX_INSTANT)


def index_keys(user: User) -> frozenset[str]:
    """What identifies the account besides its user name: its subject, its external id, the resources that represent the person."""
    return user.references | {f"subject {user.subject}"} | ({f"external {user.external_id}"} if user.external_id else set())


async def named_at(store: Store, username: str) -> int:
    """When an account that takes this user name now is named so, in microseconds; 0 if no other account had it before."""
    return store.key_values.now() if await store.key_values.get(_FORMER, username, 0) is not None else 0


async def list_page(store: Store, skip: int, limit: int) -> tuple[int, tuple[User, ...]]:
    """Return the number of accounts, and at most ``limit`` of them after the first ``skip``, ordered by user name."""
    return await _users.list_page(store, skip, limit)


async def wait_until_saved(store: Store, username: str) -> User | None:
    """Wait for running changes of the account, then return it.  Raises TimeoutError after ten seconds."""
    async with locked(store, canonical(username)):
        return await find(store, username)


async def link(store: Store, username: str, related_person: str) -> User:
    """Add a RelatedPerson to the account and keep its sessions.  Concurrent calls do not overwrite each other.

    Raises LookupError if the account does not exist or is disabled, TimeoutError if other changes take ten seconds.
    """
    key = canonical(username)
    async with locked(store, key):
        user = await find(store, key)
        if user is None or user.disabled:
            raise LookupError(key)
        if related_person in user.related_persons:
            return user
        return await put(store, msgspec.structs.replace(user, related_persons=(*user.related_persons, related_person)))


@asynccontextmanager
async def locked(store: Store, *usernames: str) -> AsyncIterator[None]:
    """Hold the locks for changes of these accounts, across all processes on this store.  Raises TimeoutError after ten seconds."""
    async with AsyncExitStack() as locks:
        for username in sorted(set(usernames)):
            await locks.enter_async_context(_locked(store, username))
        yield


@asynccontextmanager
async def _locked(store: Store, username: str) -> AsyncIterator[None]:
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
    async with locked(store, key):
        return await remove_locked(store, key, now)


async def remove_locked(store: Store, username: str, now: int) -> bool:
    """Do what :func:`remove` does, for a caller that holds the account's lock."""
    user = await find(store, username)
    removed = await give_up(store, username, now)
    if user is not None:
        for key in index_keys(user):
            if await store.key_values.get(INDEX, key, 0) == user.username.encode():
                await store.key_values.pop(INDEX, key, 0)
        for family in (second_factor_family(user), account_family(user)):
            await store.key_values.delete_family(family)
    return removed


async def give_up(store: Store, username: str, now: int) -> bool:
    """Delete what is stored under a user name and end the sessions and tokens.  False if no account had the name."""
    removed = await _users.remove(store, username)
    if removed:
        await store.key_values.put(_FORMER, username, b"", MAX_INSTANT)
    await session_ends.end_all(store, username)
    await grant_index.revoke(store, await grant_index.of_user(store, username, now))
    return removed


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
    async with locked(store, user.username):
        current = await find(store, user.username)
        if current is None or current.disabled or current.subject != user.subject:
            raise ValueError("The account has been closed.")
        return await save(store, msgspec.structs.replace(current, password_hash=hashed, password_set_at=now))


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
