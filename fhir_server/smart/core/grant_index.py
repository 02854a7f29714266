"""Finds the grants of one person, or of one client, without reading anybody else's.

Each family of tokens has a record under its person and one under its client.  The records are of the family, so whatever revokes
the family removes them, and they expire with its last token.  Those of tokens of earlier versions of this program are added at
the first look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.token_grants import TokenGrant, active_grants, session_end
from fhir_server.store import KeyValueRecord, Store

_COMPLETE: Final = "grant-index-complete"
_REMEMBERED: Final = "remembered "  # before the family, in keys of consents by which an app can have new codes
_Which = Callable[[TokenGrant], bool]


def records(grant: TokenGrant) -> tuple[KeyValueRecord, ...]:
    """The records by which a grant is found.  ``grant`` has all scopes of the family, and the expiry of its last token."""
    value = msgspec.json.encode(grant)
    return tuple(KeyValueRecord(kind, grant.family, value, grant.expires, grant.family) for kind in _kinds(grant))


async def put(store: Store, grant: TokenGrant) -> None:
    """Store the records of a grant for a new code.  To be done before the code is stored: what is usable can always be found.

    Records of the family that are there stay: the code may be one more of a lasting grant, with fewer scopes.
    """
    for record in records(grant):
        await store.key_values.put_if_absent(*record)


async def put_remembered(store: Store, grant: TokenGrant) -> None:
    """Store the records of a consent by which an app can have new codes until ``grant.expires``."""
    value, key = msgspec.json.encode(grant), _REMEMBERED + grant.family
    for kind in _kinds(grant):
        await store.key_values.put(kind, key, value, grant.expires, grant.family)


async def extend_remembered(store: Store, grant: TokenGrant, now: int) -> None:
    """Let the records of :func:`put_remembered` last until ``grant.expires``, if they are still there."""
    for kind in _kinds(grant):
        text = await store.key_values.get(kind, _REMEMBERED + grant.family, now)
        if text is not None:
            key = _REMEMBERED + grant.family
            await store.key_values.replace_value(kind, key, text, msgspec.json.encode(grant), grant.expires)


async def of_user(store: Store, username: str, now: int) -> tuple[TokenGrant, ...]:
    """The grants of this person that are still usable, one for each family."""
    return await _list(store, _user_kind(username), now)


async def of_client(store: Store, client_id: str, now: int) -> tuple[TokenGrant, ...]:
    """The grants to this client that are still usable, one for each family."""
    return await _list(store, _client_kind(client_id), now)


async def end_of(store: Store, grant: TokenGrant, now: int) -> int:
    """When the last token of this person's grant expires, in microseconds; 0 if it has ended or was revoked."""
    if grant.username is None:
        return 0
    text = await store.key_values.get(_user_kind(grant.username), grant.family, now)
    return 0 if text is None else msgspec.json.decode(text, type=TokenGrant).expires


async def revoke(store: Store, grants: Iterable[TokenGrant], which: _Which = lambda _: True) -> None:
    """Revoke the families of those grants for which ``which`` is true."""
    for grant in grants:
        if which(grant):
            await store.key_values.delete_family(grant.family)


async def _list(store: Store, kind: str, now: int) -> tuple[TokenGrant, ...]:
    await _complete(store, now)
    listed = [(key, msgspec.json.decode(text, type=TokenGrant)) for key, text in await store.key_values.list_all(kind, now)]
    found: dict[str, TokenGrant] = {}
    for _, grant in sorted(listed, key=lambda each: each[0].startswith(_REMEMBERED)):
        if await _is_over(store, grant, now):
            continue
        newest = found.get(grant.family, grant)  # what is remembered has all scopes, the last token when it was renewed
        found[grant.family] = msgspec.structs.replace(grant, issued=newest.issued, expires=max(grant.expires, newest.expires))
    return tuple(found.values())


async def _is_over(store: Store, grant: TokenGrant, now: int) -> bool:
    """Whether the grant has ended with its session."""
    return bool(grant.session) and not await session_end(store, grant.session, now)


async def _complete(store: Store, now: int) -> None:
    if await store.key_values.get(_COMPLETE, "", 0) is not None:
        return
    for grant in await active_grants(store, now):
        for record in records(grant):
            await store.key_values.put_if_absent(*record)
    await store.key_values.put(_COMPLETE, "", b"", MAX_INSTANT)


def _kinds(grant: TokenGrant) -> tuple[str, ...]:
    by_client = _client_kind(grant.client_id)
    return (_user_kind(grant.username), by_client) if grant.username else (by_client,)


def _user_kind(username: str) -> str:
    return f"grants of user {digest(username)}"


def _client_kind(client_id: str) -> str:
    return f"grants of client {digest(client_id)}"
