"""Validates id_tokens of other issuers (OpenID Connect Core 3.1.3.7)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any, Final

import anyio.to_thread
from authlib.oidc.core.util import create_half_hash
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from fhir_server.smart.core.context import SECOND

ALGORITHMS: Final = ("RS256", "RS384", "ES256", "ES384")
CLOCK_SKEW: Final = 60  # seconds


class InvalidIdTokenError(Exception):
    """The id_token is invalid or does not belong to this request."""


@dataclass(frozen=True, slots=True)
class ExpectedClaims:
    """What the id_token must contain.

    ``issuer``, ``client_id``, ``nonce``  the values of ``iss``, ``aud`` and ``nonce``
    ``access_token``  the access token that ``at_hash`` must match, if the id_token has one
    ``authenticated_after``  seconds: the person must have signed in at this time or later; 0: at any time
    """

    issuer: str
    client_id: str
    nonce: str
    access_token: str = ""
    authenticated_after: int = 0


async def verify(token: object, keys: dict[str, Any], expected: ExpectedClaims, now: int) -> dict[str, Any]:
    """Verify an id_token and return its claims.  ``keys`` is a JWK Set, ``now`` is in microseconds.  Raises InvalidIdTokenError."""
    if not isinstance(token, str):
        raise InvalidIdTokenError
    try:
        return await anyio.to_thread.run_sync(_verify, token, keys, expected, now // SECOND)
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        raise InvalidIdTokenError from None


def _verify(token: str, keys: dict[str, Any], expected: ExpectedClaims, now: int) -> dict[str, Any]:
    key_set = KeySet.import_key_set(keys)  # type: ignore[arg-type]
    decoded = jwt.decode(token, key_set, algorithms=list(ALGORITHMS))
    required: dict[str, Any] = {
        "iss": {"essential": True, "value": expected.issuer},
        "aud": {"essential": True, "value": expected.client_id},
        "nonce": {"essential": True, "value": expected.nonce},
        "azp": {"essential": isinstance(decoded.claims.get("aud"), list) and len(decoded.claims["aud"]) > 1, "value": expected.client_id},
        "exp": {"essential": True},
        "iat": {"essential": True},
        "sub": {"essential": True},
        "auth_time": {"essential": bool(expected.authenticated_after)},
    }
    JWTClaimsRegistry(now, CLOCK_SKEW, **required).validate(decoded.claims)
    if not _is_recent(decoded.claims, expected) or not _matches_access_token(decoded.claims, str(decoded.header["alg"]), expected):
        raise ValueError("auth_time or at_hash")
    return dict(decoded.claims)


def _is_recent(claims: dict[str, Any], expected: ExpectedClaims) -> bool:
    return not expected.authenticated_after or int(claims["auth_time"]) >= expected.authenticated_after - CLOCK_SKEW


def _matches_access_token(claims: dict[str, Any], alg: str, expected: ExpectedClaims) -> bool:
    if "at_hash" not in claims:
        return True
    expected_hash = bytes(create_half_hash(expected.access_token, alg))
    return hmac.compare_digest(expected_hash, str(claims["at_hash"]).encode())
