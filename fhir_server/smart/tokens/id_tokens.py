"""Signed tokens about a sign-in: the id_token (OpenID Connect Core 2, 12.2), and reading one that comes back as a hint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from authlib.oidc.core import OpenIDCode
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients import clients, subjects
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.authlib import run_on_loop
from fhir_server.smart.core.context import HOUR, SECOND, SmartContext
from fhir_server.smart.core.token_grants import TokenGrant

ALGORITHM: Final = "RS256"
CLAIMS: Final = (
    *("iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "at_hash", "sid"),
    *("fhirUser", "name", "updated_at"),
)
MULTI_FACTOR: Final = "https://refeds.org/profile/mfa"
"""``acr`` of a sign-in with two factors, the REFEDS profile for that.  A sign-in with one factor has no ``acr``."""


class IdToken(OpenIDCode):
    """Adds the id_token to the token response of a code and of a refresh, if the scope has ``openid``."""

    def __init__(self, smart: SmartContext) -> None:
        super().__init__()
        self._smart = smart

    def __call__(self, grant: Any) -> None:
        grant.register_hook("after_create_token_response", self.process_token)

    def get_compatible_claims(self, request: Any) -> dict[str, Any]:
        """All claims but ``nonce`` and ``at_hash``.  At a refresh they tell of the same sign-in as the first id_token did."""
        now, grant = self._smart.now() // SECOND, request.token_grant
        claims = {
            "iss": self._smart.origin,
            "sub": run_on_loop(subjects.subject, self._smart.store, request.client.record, request.user),
            "aud": request.client.get_client_id(),  # a string: many apps compare it with their client id
            "iat": now,
            "exp": now + HOUR // SECOND,
            **sign_in_claims(grant),
        }
        return claims | fhir_user(self._smart, grant)

    def get_authorization_code_claims(self, authorization_code: Any) -> dict[str, Any]:
        nonce = authorization_code.get_nonce()
        return {"nonce": nonce} if nonce else {}

    def get_encode_header(self, client: Any) -> dict[str, str]:
        return {"alg": ALGORITHM, "kid": run_on_loop(signing_keys.current_key, self._smart, ALGORITHM)[0]}

    def resolve_client_private_key(self, client: Any) -> Any:
        return run_on_loop(signing_keys.current_key, self._smart, ALGORITHM)[1]

    def generate_user_info(self, user: User, scope: str) -> dict[str, str]:
        """Nothing more: profile claims are at the userinfo endpoint (OpenID Connect Core 5.4)."""
        return {}


def sign_in_claims(grant: TokenGrant) -> dict[str, Any]:
    """When and how the person had signed in, as far as it is known."""
    claims = {"auth_time": grant.auth_time, "amr": list(grant.amr), "sid": grant.sid, "acr": MULTI_FACTOR if "mfa" in grant.amr else ""}
    return {name: value for name, value in claims.items() if value}


def fhir_user(smart: SmartContext, grant: TokenGrant) -> dict[str, str]:
    """The claim ``fhirUser``, if its scope was granted."""
    asked = "fhirUser" in grant.scope.split()
    return {"fhirUser": f"{smart.fhir_base}/{grant.fhir_user}"} if asked and grant.fhir_user else {}


@dataclass(frozen=True, slots=True)
class Hint:
    """Whom an id_token names that a client sends back: the client, its user, and their session ("": not named)."""

    client: Client
    sub: str
    sid: str


async def read_hint(smart: SmartContext, token: str) -> Hint | None:
    """Read an ``id_token_hint``; None if it is no id_token of this server for a registered client.

    An expired one is good: it is no credential, and apps keep them for longer (OpenID Connect RP-Initiated Logout 1.0, 2).
    """
    try:
        keys = KeySet.import_key_set(await signing_keys.jwks(smart))  # type: ignore[arg-type]
        decoded = jwt.decode(token, keys, algorithms=[ALGORITHM])
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    claims = decoded.claims
    aud, sub = claims.get("aud"), claims.get("sub")
    aud = aud[0] if isinstance(aud, list) and len(aud) == 1 else aud  # as earlier versions wrote it
    # Logout tokens have the same key, and a type of their own.
    if decoded.header.get("typ", "JWT") != "JWT" or claims.get("iss") != smart.origin:
        return None
    if not isinstance(aud, str) or not isinstance(sub, str):
        return None
    client = await clients.find(smart.store, aud)
    return Hint(client, sub, str(claims.get("sid", ""))) if client else None
