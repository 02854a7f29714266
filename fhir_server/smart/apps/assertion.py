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

from fhir_server.smart.apps import clients
from fhir_server.smart.apps.client_keys import ClientKeys, NoKeys
from fhir_server.smart.bridge import wait
from fhir_server.smart.core import MINUTE, SECOND, Smart, digest

ALGORITHMS: Final = {"RS384": "RSA", "ES384": "EC"}
LONGEST: Final = 300  # seconds from now to ``exp``
SKEW: Final = 30  # seconds that a client's clock may be ahead


class ClientAssertion(JWTBearerClientAssertion):
    """Authlib's assertion authentication with SMART's checks in place of its own."""

    CLIENT_AUTH_METHOD = "private_key_jwt"

    def __init__(self, smart: Smart) -> None:
        super().__init__()
        self._smart = smart
        self._published = ClientKeys(smart)

    def extract_assertion(self, assertion: str) -> Any:
        try:
            return super().extract_assertion(assertion)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            raise _refusal() from None

    def resolve_client_public_key(self, client: Any) -> KeySet:
        """None yet: which keys, and whether to ask the client's server for them, follows from the assertion."""
        return KeySet([])

    def process_assertion_claims(self, assertion: str, resolve_key: KeySet) -> dict[str, Any]:
        header, unproven = self.extract_assertion(assertion)
        # Before the signature, so that nobody is asked for keys on account of an assertion that could not be right.
        if not _acceptable(unproven, self._smart, self._smart.now() // SECOND):
            raise _refusal()
        key = self._key(header, unproven["sub"])
        try:
            claims = jwt.decode(assertion, key, algorithms=list(ALGORITHMS)).claims
        except (JoseError, ValueError, TypeError, KeyError):
            raise _refusal() from None
        now = self._smart.now()
        if not _acceptable(claims, self._smart, now // SECOND):
            raise _refusal()
        once = digest(f"{claims['iss']} {claims['jti']}")
        expires = now + (LONGEST + SKEW) * SECOND + MINUTE
        if not wait(self._smart.store.secrets.keep, "jti", once, b"", expires):
            raise _refusal()
        return claims

    def _key(self, header: dict[str, Any], client_id: str) -> Key:
        """The one key of this client that the header names."""
        kid, kty = header.get("kid"), ALGORITHMS.get(str(header.get("alg")))
        record = wait(clients.find, self._smart.store, client_id)
        if record is None or not isinstance(kid, str) or not kid or header.get("jku", record.jwks_uri or None) != (record.jwks_uri or None):
            raise _refusal()
        try:
            keys = wait(self._published.keys, record.jwks_uri, kid) if record.jwks_uri else KeySet.import_key_set(record.jwks)  # type: ignore[arg-type]
        except (NoKeys, JoseError, ValueError, TypeError, KeyError):
            raise _refusal() from None
        fitting = [key for key in keys if key.kid == kid and key.key_type == kty]
        if len(fitting) != 1:
            raise _refusal()
        return fitting[0]


def _acceptable(claims: dict[str, Any], smart: Smart, now: int) -> bool:
    exp: Any = claims.get("exp")
    jti = claims.get("jti")
    starts: list[Any] = [claims.get("iat", now), claims.get("nbf", now)]
    return (
        claims.get("iss") == claims.get("sub")
        and claims.get("aud") in (token_endpoint(smart), [token_endpoint(smart)])
        and all(isinstance(at, (int, float)) and not isinstance(at, bool) for at in (exp, *starts))
        and now < exp <= now + LONGEST + SKEW
        and all(at <= now + SKEW for at in starts)
        and isinstance(jti, str)
        and 0 < len(jti) <= 512
    )


def token_endpoint(smart: Smart) -> str:
    return f"{smart.origin}/oauth/token"


def _refusal() -> InvalidClientError:
    return InvalidClientError(description="The client assertion is not acceptable.")
