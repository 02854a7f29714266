"""Rotation of refresh tokens: each use replaces the token, and a second use is taken for theft (RFC 9700 4.14.2).

Two tabs of an app may refresh at the same moment, and a client whose answer was lost asks again.  So for some seconds
(``SmartContext.refresh_grace``) a second use by the same client gets the tokens of the first use again, never others.  A later
use, one by another client, and one after the new refresh token was used in its turn, end the family.

Only digests of tokens are stored.  The new tokens are also kept for these seconds, encrypted with a key that is derived from
the used refresh token, which is not stored: only a client that presents it can open them.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.fernet import Fernet, InvalidToken

from fhir_server.smart.core.context import REFRESH_LIFE, SmartContext, digest
from fhir_server.smart.core.encryption import derive_key
from fhir_server.smart.core.token_grants import ACCESS, REFRESH, SPENT_REFRESH, SUCCESSOR, TokenGrant, find
from fhir_server.smart.tokens.tokens import IssuedTokens, find_spent, new_tokens
from fhir_server.store import KeyValueRecord

_PURPOSE: Final = "fhir-server successors of a refresh token"


@dataclass(frozen=True, slots=True)
class Successor:
    """The tokens that replaced a refresh token.  ``access`` is the grant of the access token, ``whole`` has all scopes."""

    tokens: IssuedTokens
    access: TokenGrant
    whole: TokenGrant


async def rotate(smart: SmartContext, token: str, grant: TokenGrant, narrowed: TokenGrant, refresh_life: int) -> IssuedTokens | None:
    """Replace a refresh token by an access token for ``narrowed`` and a new refresh token, in one step.

    None, and nothing is stored, if the token was used or its grant was revoked since it was read.  Without a ``refresh_life``
    there is no new refresh token.
    """
    now, key = smart.now(), digest(token)
    issued, records = new_tokens(narrowed, now, refresh=grant.scope if refresh_life > 0 else None, refresh_life=refresh_life)
    owner = msgspec.json.encode((grant.client_id, grant.family))
    records.append(KeyValueRecord(SPENT_REFRESH, key, owner, now + REFRESH_LIFE, grant.family))
    if smart.refresh_grace:
        sealed = _fernet(token).encrypt(msgspec.json.encode(issued))
        records.append(KeyValueRecord(SUCCESSOR, key, sealed, now + smart.refresh_grace, grant.family))
    return issued if await smart.store.key_values.exchange(REFRESH, key, now, records) else None


async def find_successor(smart: SmartContext, token: str, client_id: str) -> Successor | None:
    """What a client gets that presents a refresh token which has been used: the same tokens as at the first use, or None.

    Ends the family of the token unless this is the same client, in time, and the new tokens are unused and valid.
    """
    values, now, key = smart.store.key_values, smart.now(), digest(token)
    spent = await find_spent(smart.store, key, now)
    if spent is None:
        return None  # never issued, expired, or revoked with its family
    owner, family = spent
    sealed = await values.get(SUCCESSOR, key, now) if owner == client_id else None
    successor = None if sealed is None else await _open(smart, token, sealed, now)
    if successor is None:
        await values.delete_family(family)
    return successor


async def _open(smart: SmartContext, token: str, sealed: bytes, now: int) -> Successor | None:
    """The sealed tokens; None if they cannot be opened, or one of them is not valid any more."""
    try:
        issued = msgspec.json.decode(_fernet(token).decrypt(sealed), type=IssuedTokens)
    except (InvalidToken, msgspec.DecodeError):
        return None
    access = await find(smart.store, ACCESS, digest(issued.access), now)
    whole = access if issued.refresh is None else await find(smart.store, REFRESH, digest(issued.refresh), now)
    if access is None or whole is None:
        return None
    return Successor(msgspec.structs.replace(issued, lifetime=access.expires - now), access, whole)


def _fernet(token: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(derive_key(token.encode(), _PURPOSE)))
