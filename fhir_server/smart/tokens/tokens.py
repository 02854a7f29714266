"""Access and refresh tokens: random texts, of which only digests are stored.

:func:`resolve_principal` is the only function that turns a bearer token into a caller.  Its result may be cached by token
digest until the store's permission epoch changes or ``expires`` is reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients import clients, staff_apps
from fhir_server.smart.core import grant_index, token_grants
from fhir_server.smart.core.context import ACCESS_LIFE, BACKEND_LIFE, REFRESH_LIFE, TOMBSTONE_LIFE, SmartContext, digest, new_secret
from fhir_server.smart.core.persons import Person, own_reference
from fhir_server.smart.core.scopes import ADMINISTRATION, Scope, narrow_scopes, resource_scopes
from fhir_server.smart.core.token_grants import ACCESS, CODE, REFRESH, SPENT_CODE, SPENT_REFRESH, TokenGrant
from fhir_server.store import KeyValueRecord, Store


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller that an access token identifies at one instant.

    ``client_clearance``        sensitive categories that a backend may receive, ``*`` for all
    ``trusted_writer``          whether the client may write security labels
    ``person``                  the person who granted the token; None for a backend
    ``patient``, ``encounter``  ids in context
    ``fhir_user``               ``Type/id`` of the resource that represents the person in this context
    ``expires``                 in microseconds; until then the token is valid, unless the epoch changes
    ``withheld_labels``         sensitivity labels that the person withholds from this client
    ``owner``                   what owns apps' data and exports of the person (:attr:`User.owner_name`); "" for a backend
    ``named_at``                acts of this user name until then are of another account, in microseconds
    ``administers``             whether the token is for administering accounts, and for nothing else
    ``jkt``                     thumbprint of the key that the token is bound to (DPoP); "" for a bearer token.  A door that takes
                                the token must compare it with the key that the request proves
    ``session``                 the key of the sign-in session that the token ends with; "" for none
    """

    client_id: str
    client_kind: clients.ClientKind
    client_clearance: frozenset[str]
    trusted_writer: bool
    username: str | None
    person: Person | None
    patient: str | None
    encounter: str | None
    scopes: tuple[Scope, ...]
    fhir_user: str | None
    family: str
    expires: int
    withheld_labels: frozenset[str] = frozenset()
    owner: str = ""
    named_at: int = 0
    administers: bool = False
    jkt: str = ""
    session: str = ""


class IssuedTokens(msgspec.Struct, frozen=True):
    """New tokens.  ``refresh`` is None if no refresh token was requested; ``lifetime`` is the access token's, in microseconds."""

    access: str
    refresh: str | None
    lifetime: int


async def resolve_principal(store: Store, token: str, now: int) -> Principal | None:
    """The caller that a bearer token identifies.  None if it is unknown, expired or revoked, or its client or account is gone."""
    grant = await token_grants.find(store, ACCESS, digest(token), now)
    return None if grant is None else await principal_of(store, grant, now)


async def principal_of(store: Store, grant: TokenGrant, now: int) -> Principal | None:
    """The caller that a grant identifies.  None if it has expired, or its client, account, session or approval is gone."""
    client = await clients.find(store, grant.client_id)
    if client is None or grant.expires <= now:
        return None
    user = await find_account(store, grant)
    if grant.username and (user is None or not client.is_as_allowed(grant.app, grant.since)):
        return None
    lapses = await token_grants.session_end(store, grant.session, now) if grant.session else grant.expires
    if not lapses:
        return None
    approval = await staff_apps.find(store, client, now) if grant.approval else None
    if grant.approval and (approval is None or approval.key != grant.approval):
        return None
    person = user.person() if user else None
    scope = current_scope(client, grant)
    return Principal(
        client_id=client.client_id,
        client_kind=client.kind,
        client_clearance=frozenset(client.clearance),
        trusted_writer=client.trusted,
        username=grant.username,
        person=person,
        patient=grant.patient,
        encounter=grant.encounter,
        scopes=resource_scopes(scope),
        fhir_user=(grant.fhir_user or own_reference(person)) if person else None,
        family=grant.family,
        expires=min(grant.expires, lapses, approval.until if approval and approval.until else grant.expires),
        withheld_labels=frozenset(grant.withheld),
        owner=user.owner_name if user else "",
        named_at=user.named_at if user else 0,
        administers=scope == ADMINISTRATION,
        jkt=grant.jkt,
        session=grant.session,
    )


async def resolve_bearer(store: Store, token: str, now: int) -> Principal | None:
    """The caller of :func:`resolve_principal`, for a door that takes bearer tokens only: None for one that is bound to a key."""
    principal = await resolve_principal(store, token, now)
    return principal if principal is not None and not principal.jkt else None


async def find_account(store: Store, grant: TokenGrant) -> User | None:
    """The account that a grant acts for; None for a backend, and if the account is gone or no longer backs the grant."""
    user = await users.find(store, grant.username) if grant.username else None
    return user if user is not None and user.backs(grant) else None


async def is_approved(smart: SmartContext, user: User, grant: TokenGrant) -> bool:
    """Whether an app may still have new tokens by what a member of staff gave it; True for everybody else."""
    if not staff_apps.is_staff(user) or not staff_apps.needs_approval(grant.scope):
        return True
    if not grant.approval:
        return smart.staff_apps == "ask"
    client = await clients.find(smart.store, grant.client_id)
    approval = await staff_apps.find(smart.store, client, smart.now()) if client else None
    return approval is not None and approval.key == grant.approval


def current_scope(client: clients.Client, grant: TokenGrant) -> str:
    """The granted scopes that the client's current registration still allows."""
    return " ".join(narrow_scopes(grant.scope, client.scopes, client.levels))


async def issue_operator_token(
    store: Store,
    client_id: str,
    scope: str,
    now: int,
    *,
    username: str | None = None,
    patient: str | None = None,
    fhir_user: str | None = None,
) -> str:
    """Issue an access token, valid for one hour, for the command line.

    Raises ValueError, with a message for the operator, for an unknown client or user and for scopes that the client may
    not have.
    """
    client = await clients.find(store, client_id)
    if client is None:
        raise ValueError(f"There is no client {client_id!r}.")
    user = await users.find(store, username) if username else None
    if username and user is None:
        raise ValueError(f"There is no user {username!r}.")
    named, generation = (user.username, user.generation) if user else (None, 0)
    grant = TokenGrant(client_id, scope, new_secret(), named, patient, None, fhir_user, generation=generation, app=client.identity)
    if refused := set(scope.split()) - set(current_scope(client, grant).split()):
        raise ValueError(f"The client may not have {' '.join(sorted(refused))}.")
    return (await issue(store, grant, now, lifetime=ACCESS_LIFE)).access


async def issue(
    store: Store,
    grant: TokenGrant,
    now: int,
    *,
    refresh: str | None = None,
    lifetime: int | None = None,
    refresh_life: int = REFRESH_LIFE,
) -> IssuedTokens:
    """Issue the tokens of :func:`new_tokens`.  Raises what that raises."""
    issued, records = new_tokens(grant, now, refresh=refresh, lifetime=lifetime, refresh_life=refresh_life)
    for record in records:
        await store.key_values.put(*record)
    return issued


def new_tokens(
    grant: TokenGrant, now: int, *, refresh: str | None = None, lifetime: int | None = None, refresh_life: int = REFRESH_LIFE
) -> tuple[IssuedTokens, list[KeyValueRecord]]:
    """An access token for a grant, a refresh token for the scopes ``refresh`` if given, and their records.  Times in microseconds.

    The tokens are valid once the records are stored.

    Raises ValueError for an inconsistent grant: ``patient/`` scopes without a patient, ``system/`` scopes with a person,
    ``patient/`` or ``user/`` scopes without a person.
    """
    _check(grant)
    life = lifetime or (ACCESS_LIFE if grant.username else BACKEND_LIFE)
    access, record = _new_token(ACCESS, grant, now, life)
    if refresh is None:
        return IssuedTokens(access, None, life), [*grant_index.records(_dated(grant, now, life)), record]
    whole = msgspec.structs.replace(grant, scope=refresh)
    refresh_token, refresh_record = _new_token(REFRESH, whole, now, refresh_life)
    return IssuedTokens(access, refresh_token, life), [*grant_index.records(_dated(whole, now, refresh_life)), record, refresh_record]


def _new_token(kind: str, grant: TokenGrant, now: int, life: int) -> tuple[str, KeyValueRecord]:
    text = new_secret()
    return text, KeyValueRecord(kind, digest(text), msgspec.json.encode(_dated(grant, now, life)), now + life, grant.family)


def _dated(grant: TokenGrant, now: int, life: int) -> TokenGrant:
    return msgspec.structs.replace(grant, issued=now, expires=now + life, since=grant.since or now)


def _check(grant: TokenGrant) -> None:
    levels = {scope.level for scope in resource_scopes(grant.scope)}
    if "patient" in levels and grant.patient is None:
        raise ValueError("patient/ scopes require a patient in context.")
    if grant.username is not None and "system" in levels:
        raise ValueError("system/ scopes are only for backend clients, without a person.")
    if grant.username is None and levels & {"patient", "user"}:
        raise ValueError("patient/ and user/ scopes require a person.")


async def claim_code(store: Store, key: str, grant: TokenGrant, now: int) -> bool:
    """Claim a code before tokens are issued.  True for exactly one caller, who then calls :func:`consume_code`.

    A later use finds the claim and so is recognized as reuse.  The code stays in the store until it is consumed, so that a
    revocation in between finds the grant.
    """
    owner = msgspec.json.encode((grant.client_id, grant.family))
    return await store.key_values.put_if_absent(SPENT_CODE, key, owner, now + TOMBSTONE_LIFE, grant.family)


async def consume_code(store: Store, key: str, grant: TokenGrant, now: int) -> bool:
    """Remove a claimed code.  False if the grant was revoked since: then the new tokens are revoked too."""
    if await store.key_values.pop(CODE, key, now) is not None:
        return True
    await store.key_values.delete_family(grant.family)
    return False


async def client_of_refresh_token(store: Store, key: str, now: int) -> str | None:
    """The id of the client that received a refresh token, used or not; None for an unknown one."""
    grant = await token_grants.find(store, REFRESH, key, now)
    if grant is not None:
        return grant.client_id
    spent = await find_spent(store, key, now)
    return spent[0] if spent else None


async def find_spent(store: Store, key: str, now: int) -> tuple[str, str] | None:
    """Client and family of a refresh token that was used; None for any other, and if the family was revoked."""
    text = await store.key_values.get(SPENT_REFRESH, key, now)
    return None if text is None else msgspec.json.decode(text, type=tuple[str, str])


async def revoke_if_reused(store: Store, key: str, client_id: str, now: int) -> None:
    """Revoke the family of a code that the same client has consumed before: it may be stolen (RFC 6749 4.1.2)."""
    text = await store.key_values.get(SPENT_CODE, key, now)
    if text is None or await store.key_values.get(CODE, key, now) is not None:  # in the latter case, another request is exchanging it
        return
    owner, family = msgspec.json.decode(text, type=tuple[str, str])
    if owner == client_id:
        await store.key_values.delete_family(family)
