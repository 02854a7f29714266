"""Reading other issuers' id_tokens (OpenID Connect Core 3.1.3.7): proof that an answer is to our question."""

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
CLOCK_SKEW: Final = 60  # seconds that two clocks may differ


class InvalidIdTokenError(Exception):
    """The token is not the one that was asked for."""


@dataclass(frozen=True, slots=True)
class ExpectedClaims:
    """What the token must state: by whom, for whom, in answer to which question, beside which access token.

    ``authenticated_after``  seconds: the person must have signed in at this time or later; 0: at any time
    """

    issuer: str
    client_id: str
    nonce: str
    access_token: str = ""
    authenticated_after: int = 0


async def verify(token: object, keys: dict[str, Any], expected: ExpectedClaims, now: int) -> dict[str, Any]:
    """The claims of a token that ``keys`` (a JWK Set) verify and that is as expected.  Raises Unproven.  ``now`` in microseconds."""
    if not isinstance(token, str):
        raise InvalidIdTokenError
    try:
        return await anyio.to_thread.run_sync(_verify, token, keys, expected, now // SECOND)
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        raise InvalidIdTokenError from None


def _verify(token: str, keys: dict[str, Any], expected: ExpectedClaims, now: int) -> dict[str, Any]:
    known = KeySet.import_key_set(keys)  # type: ignore[arg-type]
    read = jwt.decode(token, known, algorithms=list(ALGORITHMS))
    stated: dict[str, Any] = {
        "iss": {"essential": True, "value": expected.issuer},
        "aud": {"essential": True, "value": expected.client_id},
        "nonce": {"essential": True, "value": expected.nonce},
        "azp": {"essential": isinstance(read.claims.get("aud"), list) and len(read.claims["aud"]) > 1, "value": expected.client_id},
        "exp": {"essential": True},
        "iat": {"essential": True},
        "sub": {"essential": True},
        "auth_time": {"essential": bool(expected.authenticated_after)},
    }
    JWTClaimsRegistry(now, CLOCK_SKEW, **stated).validate(read.claims)
    if not _check_times(read.claims, expected) or not _check_access_token_hash(read.claims, str(read.header["alg"]), expected):
        raise ValueError("auth_time or at_hash")
    return dict(read.claims)


def _check_times(claims: dict[str, Any], expected: ExpectedClaims) -> bool:
    return not expected.authenticated_after or int(claims["auth_time"]) >= expected.authenticated_after - CLOCK_SKEW


def _check_access_token_hash(claims: dict[str, Any], alg: str, expected: ExpectedClaims) -> bool:
    if "at_hash" not in claims:
        return True
    half = bytes(create_half_hash(expected.access_token, alg))
    return hmac.compare_digest(half, str(claims["at_hash"]).encode())
