"""How we prove who we are to another authorization server, whose client we are (RFC 6749 2.3, RFC 7523)."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote_plus

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc7523 import PrivateKeyJWT

from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.context import MINUTE, SECOND, SmartContext

AuthenticatedRequest = tuple[str, dict[str, str]]
_LIFE: Final = 4 * MINUTE  # SMART allows five, clocks differ


async def authenticate_by_key(
    smart: SmartContext, client_id: str, audience: str, endpoint: str, body: str, alg: str = "ES384"
) -> AuthenticatedRequest:
    """The form body and headers with an assertion signed by our key for ``alg``; ``audience`` is the server's token endpoint."""
    kid, key = await signing_keys.current_key(smart, alg)
    now = smart.now()
    claims = {"iat": now // SECOND, "exp": (now + _LIFE) // SECOND}
    return _prepare(ClientAuth(client_id, key, PrivateKeyJWT(audience, claims, {"kid": kid}, alg)), endpoint, body)


def authenticate_by_secret(client_id: str, secret: str, method: str, endpoint: str, body: str) -> AuthenticatedRequest:
    """With a secret, by ``client_secret_basic`` or ``client_secret_post``."""
    if method == "client_secret_basic":
        client_id, secret = quote_plus(client_id), quote_plus(secret)  # RFC 6749 2.3.1; Authlib leaves it to us
    return _prepare(ClientAuth(client_id, secret, method), endpoint, body)


def authenticate_by_id(client_id: str, endpoint: str, body: str) -> AuthenticatedRequest:
    """As a public client."""
    return _prepare(ClientAuth(client_id, None, "none"), endpoint, body)


def _prepare(proof: ClientAuth, endpoint: str, body: str) -> AuthenticatedRequest:
    _, headers, signed = proof.prepare("POST", endpoint, {}, body)
    return signed, headers
