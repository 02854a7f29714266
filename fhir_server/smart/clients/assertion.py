"""Client authentication by a signed assertion (private_key_jwt).

https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html lists what a server must check.
Every refusal is ``invalid_client`` with one text: which check failed is nobody's business but the client's, who has
the assertion.
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


class ClientAssertion(JWTBearerClientAssertion):
    """Authlib's assertion authentication with SMART's checks in place of its own."""

    CLIENT_AUTH_METHOD = "private_key_jwt"

    def __init__(self, smart: SmartContext) -> None:
        super().__init__()
        self._smart = smart
        self._published = JwksCache(smart)

    async def keys(self, assertion: str) -> KeySet:
        """The keys of the client that an assertion says it is by; none where it could not be right.

        To be asked for before the request goes to a worker: the client's server may take its time, and workers are few.
        """
        try:
            header, unproven = self.extract_assertion(assertion)
        except InvalidClientError:
            return KeySet([])
        # Before the signature, so that nobody is asked for keys on account of an assertion that could not be right.
        if not _acceptable(unproven, self._smart, self._smart.now() // SECOND) or not isinstance(unproven["sub"], str):
            return KeySet([])
        record, kid = await clients.find(self._smart.store, unproven["sub"]), header.get("kid")
        if record is None or not isinstance(kid, str) or not kid or header.get("jku", record.jwks_uri or None) != (record.jwks_uri or None):
            return KeySet([])
        try:
            published = await self._published.keys(record.jwks_uri, kid) if record.jwks_uri else parse_jwks(record.jwks)
        except (KeysUnavailableError, UnreadableKeysError):
            return KeySet([])
        return published

    def __call__(self, query_client: Any, request: AuthlibRequest) -> Any:
        def with_keys(client_id: str) -> Any:
            client = query_client(client_id)
            if client is None:
                raise _refusal()
            client.keys = request.keys
            return client

        return super().__call__(with_keys, request)

    def extract_assertion(self, assertion: str) -> Any:
        try:
            return super().extract_assertion(assertion)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            raise _refusal() from None

    def resolve_client_public_key(self, client: Any) -> KeySet:
        keys: KeySet = client.keys
        return keys

    def process_assertion_claims(self, assertion: str, resolve_key: KeySet) -> dict[str, Any]:
        header, _ = self.extract_assertion(assertion)
        try:
            claims = jwt.decode(assertion, _named(header, resolve_key), algorithms=list(ALGORITHMS)).claims
        except (JoseError, ValueError, TypeError, KeyError):
            raise _refusal() from None
        now = self._smart.now()
        if not _acceptable(claims, self._smart, now // SECOND):
            raise _refusal()
        once = digest(f"{claims['iss']} {claims['jti']}")
        expires = now + (MAX_LIFETIME + CLOCK_SKEW) * SECOND + MINUTE
        if not run_on_loop(self._smart.store.key_values.put_if_absent, "jti", once, b"", expires):
            raise _refusal()
        return claims


def _named(header: dict[str, Any], keys: KeySet) -> Key:
    """The one key that the header names, of the type that its algorithm needs."""
    kid, kty = header.get("kid"), ALGORITHMS.get(str(header.get("alg")))
    fitting = [key for key in keys if key.kid == kid and key.key_type == kty and is_strong_key(key)]
    if len(fitting) != 1:
        raise _refusal()
    return fitting[0]


def _acceptable(claims: dict[str, Any], smart: SmartContext, now: int) -> bool:
    exp: Any = claims.get("exp")
    jti = claims.get("jti")
    starts: list[Any] = [claims.get("iat", now), claims.get("nbf", now)]
    return (
        claims.get("iss") == claims.get("sub")
        and claims.get("aud") in (token_endpoint(smart), [token_endpoint(smart)])
        and all(isinstance(at, (int, float)) and not isinstance(at, bool) for at in (exp, *starts))
        and now < exp <= now + MAX_LIFETIME + CLOCK_SKEW
        and all(at <= now + CLOCK_SKEW for at in starts)
        and isinstance(jti, str)
        and 0 < len(jti) <= 512
    )


def token_endpoint(smart: SmartContext) -> str:
    return f"{smart.origin}/oauth/token"


def _refusal() -> InvalidClientError:
    return InvalidClientError(description="The client assertion is not acceptable.")
