"""Authenticates this server as a client of another authorization server (RFC 6749 2.3, RFC 7523).

Each function takes a form body and returns the body and headers to send.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote_plus

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc7523 import PrivateKeyJWT

from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.context import MINUTE, SECOND, SmartContext

AuthenticatedRequest = tuple[str, dict[str, str]]
_LIFE: Final = 4 * MINUTE  # SMART allows five minutes; one is left for clock skew


async def authenticate_by_key(
    smart: SmartContext, client_id: str, audience: str, endpoint: str, body: str, alg: str = "ES384"
) -> AuthenticatedRequest:
    """Authenticate with an assertion, signed with this server's key for ``alg``.  ``audience`` is the other token endpoint."""
    kid, key = await signing_keys.current_key(smart, alg)
    now = smart.now()
    claims = {"iat": now // SECOND, "exp": (now + _LIFE) // SECOND}
    return _prepare(ClientAuth(client_id, key, PrivateKeyJWT(audience, claims, {"kid": kid}, alg)), endpoint, body)


def authenticate_by_secret(client_id: str, secret: str, method: str, endpoint: str, body: str) -> AuthenticatedRequest:
    """Authenticate with a secret.  ``method`` is ``client_secret_basic`` or ``client_secret_post``."""
    if method == "client_secret_basic":
        client_id, secret = quote_plus(client_id), quote_plus(secret)  # RFC 6749 2.3.1; Authlib does not do it
    return _prepare(ClientAuth(client_id, secret, method), endpoint, body)


def authenticate_by_id(client_id: str, endpoint: str, body: str) -> AuthenticatedRequest:
    """Identify as a public client, by ``client_id`` alone."""
    return _prepare(ClientAuth(client_id, None, "none"), endpoint, body)


def _prepare(authentication: ClientAuth, endpoint: str, body: str) -> AuthenticatedRequest:
    _, headers, authenticated_body = authentication.prepare("POST", endpoint, {}, body)
    return authenticated_body, headers
