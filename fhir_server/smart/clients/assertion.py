"""Client authentication by a signed assertion (private_key_jwt).

https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html lists what a server must check.
Every failure is ``invalid_client`` with the same text, so that an attacker does not learn which check failed.
"""

from __future__ import annotations

from typing import Any, Final

from authlib.oauth2.rfc6749 import InvalidClientError
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet

from fhir_server.smart.clients import clients
from fhir_server.smart.clients.jwks_cache import JwksCache, KeysUnavailableError, UnreadableKeysError, is_strong_key, parse_jwks
from fhir_server.smart.core.authlib import AuthlibRequest, run_on_loop
from fhir_server.smart.core.context import MINUTE, SECOND, SmartContext, digest

ALGORITHMS: Final = {"RS384": "RSA", "ES384": "EC"}
MAX_LIFETIME: Final = 300  # seconds from now to ``exp``
CLOCK_SKEW: Final = 30  # seconds that a client's clock may be ahead
_INVALID: Final = "The client assertion is not valid."


class UsedAssertionError(InvalidClientError):
    """The assertion is the client's, but was used before."""


class ClientAssertion(JWTBearerClientAssertion):
    """Authlib's assertion authentication, with SMART's checks instead of Authlib's."""

    CLIENT_AUTH_METHOD = "private_key_jwt"

    def __init__(self, smart: SmartContext) -> None:
        super().__init__()
        self._smart = smart
        self._jwks_cache = JwksCache(smart)

    async def keys(self, assertion: str) -> KeySet:
        """The public keys of the client that an assertion names; an empty set if the assertion cannot be valid.

        Call it before the request goes to a worker thread: the client's server may be slow, and threads are few.
        """
        try:
            header, unverified = self.extract_assertion(assertion)
        except InvalidClientError:
            return KeySet([])
        # Before the signature is verified: an assertion that cannot be valid must not cause a request to a client's server.
        acceptable = _is_acceptable(unverified, _par_audiences(self._smart), self._smart.now() // SECOND)
        if not acceptable or not isinstance(unverified["sub"], str):
            return KeySet([])
        record, kid = await clients.find(self._smart.store, unverified["sub"]), header.get("kid")
        if record is None or not isinstance(kid, str) or not kid or header.get("jku", record.jwks_uri or None) != (record.jwks_uri or None):
            return KeySet([])
        try:
            return await self._jwks_cache.keys(record.jwks_uri, kid) if record.jwks_uri else parse_jwks(record.jwks)
        except (KeysUnavailableError, UnreadableKeysError):
            return KeySet([])

    def __call__(self, query_client: Any, request: AuthlibRequest) -> Any:
        def with_keys(client_id: str) -> Any:
            client = query_client(client_id)
            if client is None:
                raise _invalid_assertion()
            client.keys = request.keys
            is_pushed = request.uri.endswith("/oauth/par")
            client.audiences = _par_audiences(self._smart) if is_pushed else _audiences(self._smart)
            return client

        try:
            return super().__call__(with_keys, request)
        except UsedAssertionError:
            request.is_proven = True
            raise

    def extract_assertion(self, assertion: str) -> Any:
        try:
            return super().extract_assertion(assertion)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            raise _invalid_assertion() from None

    def resolve_client_public_key(self, client: Any) -> tuple[KeySet, tuple[str, ...]]:
        return client.keys, client.audiences

    def process_assertion_claims(self, assertion: str, resolve_key: tuple[KeySet, tuple[str, ...]]) -> dict[str, Any]:
        keys, audiences = resolve_key
        header, _ = self.extract_assertion(assertion)
        try:
            claims = jwt.decode(assertion, _find_key(header, keys), algorithms=list(ALGORITHMS)).claims
        except (JoseError, ValueError, TypeError, KeyError):
            raise _invalid_assertion() from None
        now = self._smart.now()
        if not _is_acceptable(claims, audiences, now // SECOND):
            raise _invalid_assertion()
        jti_digest = digest(f"{claims['iss']} {claims['jti']}")
        expires = now + (MAX_LIFETIME + CLOCK_SKEW) * SECOND + MINUTE
        if not run_on_loop(self._smart.store.key_values.put_if_absent, "jti", jti_digest, b"", expires):
            raise UsedAssertionError(description=_INVALID)
        return claims


def _find_key(header: dict[str, Any], keys: KeySet) -> Key:
    """The key with the header's ``kid``, of the type of its ``alg``.  Raises InvalidClientError unless exactly one fits."""
    kid, kty = header.get("kid"), ALGORITHMS.get(str(header.get("alg")))
    matching = [key for key in keys if key.kid == kid and key.key_type == kty and is_strong_key(key)]
    if len(matching) != 1:
        raise _invalid_assertion()
    return matching[0]


def _is_acceptable(claims: dict[str, Any], audiences: tuple[str, ...], now: int) -> bool:
    exp: Any = claims.get("exp")
    jti = claims.get("jti")
    not_before: list[Any] = [claims.get("iat", now), claims.get("nbf", now)]
    return (
        claims.get("iss") == claims.get("sub")
        and claims.get("aud") in (*audiences, *([one] for one in audiences))
        and all(isinstance(at, (int, float)) and not isinstance(at, bool) for at in (exp, *not_before))
        and now < exp <= now + MAX_LIFETIME + CLOCK_SKEW
        and all(at <= now + CLOCK_SKEW for at in not_before)
        and isinstance(jti, str)
        and 0 < len(jti) <= 512
    )


def token_endpoint(smart: SmartContext) -> str:
    """The URL of the token endpoint."""
    return f"{smart.origin}/oauth/token"


def _audiences(smart: SmartContext) -> tuple[str, ...]:
    """What an assertion may be for (RFC 7523 3): this server, by its token endpoint, as SMART has it, or by its issuer identifier.

    Libraries of today name the issuer, which no other server can have in its metadata, so that an assertion cannot be passed on.
    """
    return (token_endpoint(smart), smart.origin)


def _par_audiences(smart: SmartContext) -> tuple[str, ...]:
    """What it may be for at ``/oauth/par``, in addition that endpoint (RFC 9126 2)."""
    return (*_audiences(smart), f"{smart.origin}/oauth/par")


def _invalid_assertion() -> InvalidClientError:
    return InvalidClientError(description=_INVALID)
