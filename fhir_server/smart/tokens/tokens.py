"""Access and refresh tokens: random texts, of which only digests are kept.

:func:`principal` is the one place where a bearer token becomes a caller.  Its answer may be cached by token
digest for as long as the store's ``security`` counter stands still and ``expires`` lies ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from fhir_server.smart.accounts import users
from fhir_server.smart.clients import clients
from fhir_server.smart.core import token_grants
from fhir_server.smart.core.context import ACCESS_LIFE, BACKEND_LIFE, REFRESH_LIFE, TOMBSTONE_LIFE, digest, new_secret
from fhir_server.smart.core.persons import Person, own_reference, references
from fhir_server.smart.core.scopes import Scope, narrow_scopes, resource_scopes
from fhir_server.smart.core.token_grants import ACCESS, REFRESH, TokenGrant
from fhir_server.store import Store


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller, as established by an access token at one instant.

    ``patient``, ``encounter``  ids in context
    ``person``                  who is behind the token; None for a backend acting for itself
    ``fhir_user``               ``Type/id`` of the row that this person is, in this context
    ``expires``                 microseconds; not a caller from then on
    ``withheld``                sensitivity labels of rows that the person keeps from this client
    """

    client_id: str
    client_kind: clients.Kind
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


class IssuedTokens(msgspec.Struct, frozen=True):
    """A new token pair; ``refresh`` is None where none was asked for.  ``lifetime`` in microseconds."""

    access: str
    refresh: str | None
    lifetime: int


async def resolve_principal(store: Store, token: str, now: int) -> Principal | None:
    """The caller that a bearer token names, or None for one that is unknown, expired, revoked or orphaned."""
    grant = await token_grants.find(store, ACCESS, digest(token), now)
    client = None if grant is None else await clients.find(store, grant.client_id)
    if grant is None or client is None or grant.expires <= now:
        return None
    user = await users.find(store, grant.username) if grant.username else None
    if grant.username and (user is None or user.disabled):
        return None
    person = user.person() if user else None
    return Principal(
        client_id=client.client_id,
        client_kind=client.kind,
        client_clearance=frozenset(client.clearance),
        trusted_writer=client.trusted,
        username=grant.username,
        person=person,
        patient=grant.patient,
        encounter=grant.encounter,
        scopes=resource_scopes(current_scope(client, grant)),
        fhir_user=_fhir_user(grant, person),
        family=grant.family,
        expires=grant.expires,
        withheld_labels=frozenset(grant.withheld),
    )


def _fhir_user(grant: TokenGrant, person: Person | None) -> str | None:
    if person is None:
        return None
    return grant.fhir_user if grant.fhir_user in references(person) else own_reference(person)


def current_scope(client: clients.Client, grant: TokenGrant) -> str:
    """What is left of the granted scopes under the client's registration as it stands now."""
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
    """An access token, good for an hour, made by someone at the machine that holds the store.

    Raises ValueError, worded for the operator, for an unknown client or user, and for scopes the client may not have.
    """
    client = await clients.find(store, client_id)
    if client is None:
        raise ValueError(f"There is no client {client_id!r}.")
    user = await users.find(store, username) if username else None
    if username and user is None:
        raise ValueError(f"There is no user {username!r}.")
    grant = TokenGrant(client_id, scope, new_secret(), user.username if user else None, patient, None, fhir_user)
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
    """Make an access token for a grant (and, if ``refresh`` scopes are given, a refresh token that stands for those).

    Raises ValueError for a grant that no token may state: ``patient/`` scopes without a patient, ``system/``
    scopes beside a person, ``patient/`` or ``user/`` scopes without one.
    """
    _check(grant)
    life = lifetime or (ACCESS_LIFE if grant.username else BACKEND_LIFE)
    access = await _keep(store, ACCESS, grant, now, life)
    renewal = None
    if refresh is not None:
        renewal = await _keep(store, REFRESH, msgspec.structs.replace(grant, scope=refresh), now, refresh_life)
    return IssuedTokens(access, renewal, life)


async def _keep(store: Store, kind: str, grant: TokenGrant, now: int, life: int) -> str:
    text = new_secret()
    record = msgspec.json.encode(msgspec.structs.replace(grant, issued=now, expires=now + life, since=grant.since or now))
    await store.key_values.put(kind, digest(text), record, now + life, grant.family)
    return text


def _check(grant: TokenGrant) -> None:
    levels = {scope.level for scope in resource_scopes(grant.scope)}
    if "patient" in levels and grant.patient is None:
        raise ValueError("patient/ scopes need a patient in context.")
    if grant.username is not None and "system" in levels:
        raise ValueError("system/ scopes are for clients that act for no person.")
    if grant.username is None and levels & {"patient", "user"}:
        raise ValueError("patient/ and user/ scopes need a person.")


async def claim(store: Store, kind: str, key: str, grant: TokenGrant, now: int) -> bool:
    """Claim a code or refresh token: of any number of claimants one is told True.  Call :func:`spend` once tokens are made.

    The claim is what its reuse is seen by later.  The code or token itself stays until then, so that whoever looks for what
    stands (to end it) finds the grant in between too.
    """
    owner = msgspec.json.encode((grant.client_id, grant.family))
    life = TOMBSTONE_LIFE if kind != REFRESH else REFRESH_LIFE
    return await store.key_values.put_if_absent(f"spent-{kind}", key, owner, now + life, grant.family)


async def consume(store: Store, kind: str, key: str, grant: TokenGrant, now: int) -> bool:
    """Take a claimed code or refresh token away; False if the grant was ended meanwhile: then what was just made ends too."""
    if await store.key_values.pop(kind, key, now) is not None:
        return True
    await store.key_values.delete_family(grant.family)
    return False


async def client_of(store: Store, kind: str, key: str, now: int) -> str | None:
    """Id of the client that a code or refresh token was given to, be it redeemed or not."""
    held = await token_grants.find(store, kind, key, now)
    if held is not None:
        return held.client_id
    text = await store.key_values.get(f"spent-{kind}", key, now)
    return None if text is None else msgspec.json.decode(text, type=tuple[str, str])[0]


async def revoke_if_reused(store: Store, kind: str, key: str, client_id: str, now: int) -> None:
    """If this was redeemed before by the same client, end its family: one of the two holders is a thief (RFC 9700 4.14)."""
    text = await store.key_values.get(f"spent-{kind}", key, now)
    if text is None or await store.key_values.get(kind, key, now) is not None:  # the latter: it is being exchanged just now
        return
    owner, family = msgspec.json.decode(text, type=tuple[str, str])
    if owner == client_id:
        await store.key_values.delete_family(family)
