"""Requests and revokes tokens at another system, with this server's client authentication there."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_token_request
from authlib.oauth2.rfc7009 import prepare_revoke_token_request

from fhir_server.clock import MAX_INSTANT
from fhir_server.linking import http
from fhir_server.linking.context import ENDED, INVALID_RESPONSE, LinkEndedError, LinkingContext, UnreachableError
from fhir_server.linking.organizations import Organization
from fhir_server.linking.scopes import MAX_SCOPE
from fhir_server.smart.core.context import SECOND
from fhir_server.smart.outbound import client_authentication

FAULT: Final = "The other health system has a problem of its own. Try again later."
_NOT_ACCEPTED: Final = (
    "The other health system does not accept requests of this server at the moment. Contact our health information office."
)
_LONGEST: Final = 366 * 86_400  # seconds that an access token may be valid
_CODE: Final = re.compile(r"[a-z_]{1,60}", re.ASCII)
_BEARER: Final = re.compile(r"[!-~]{1,16384}", re.ASCII)


class PartnerTokens(msgspec.Struct, frozen=True):
    """Tokens of another system.

    ``refresh``  "" for none
    ``expires``  of the access token, microseconds since 1970 UTC
    ``scope``    the granted scopes; "" if they are not known, as for links of earlier versions
    """

    access: str
    refresh: str
    expires: int
    scope: str = ""


async def request_tokens(
    context: LinkingContext, organization: Organization, endpoint: str, grant_type: str, **parameters: str
) -> dict[str, Any]:
    """Send a token request and return the response.

    Raises LinkEndedError if the other system does not accept the code or refresh token (any more), else UnreachableError.
    """
    body, headers = await _post_authenticated(context, organization, endpoint, endpoint, prepare_token_request(grant_type, **parameters))
    response = await http.post_form(context, organization, endpoint, body, headers)
    if response.status == 200:
        return response.body
    error = quote_code(response.body.get("error"))
    cause = f"its token endpoint answered with status {response.status} and " + (f"the error {error}" if error else "no OAuth error")
    # A refusal without an OAuth error (an HTML page) can only be of the token: this server has registered its client.
    if response.status in (400, 401) and error in ("", "invalid_grant"):
        raise LinkEndedError(ENDED, cause)
    if response.status >= 500:
        raise UnreachableError(FAULT, cause)
    raise UnreachableError(_NOT_ACCEPTED if error else INVALID_RESPONSE, cause)


def parse_tokens(context: LinkingContext, response: dict[str, Any], previous_refresh: str = "", scope: str = "") -> PartnerTokens:
    """Return the tokens of a token response. Raises UnreachableError if it is invalid.

    ``previous_refresh``  the refresh token that stays valid if the response has no new one
    ``scope``             the scopes that are granted if the response names none (RFC 6749 5.1): those that were asked for
    """
    access, refresh = response.get("access_token"), response.get("refresh_token")
    is_bearer = str(response.get("token_type")).lower() == "bearer"
    if not is_bearer or not isinstance(access, str) or not _BEARER.fullmatch(access):
        raise UnreachableError(INVALID_RESPONSE, "its token response has no bearer token")
    expires = _expiry(context.smart.now(), response.get("expires_in"))
    granted = response.get("scope")
    if isinstance(granted, str) and granted.strip():
        scope = granted if len(granted) <= MAX_SCOPE else ""
    return PartnerTokens(access, refresh if isinstance(refresh, str) and refresh else previous_refresh, expires, scope)


def quote_code(error: object) -> str:
    """Return an OAuth error code for the log; "" for anything that is none."""
    return error if isinstance(error, str) and _CODE.fullmatch(error) else ""


def _expiry(now: int, lifetime: object) -> int:
    """Return when an access token expires.

    ``expires_in`` may be absent (RFC 6749 5.1), and some servers send it as text. Without a usable one, the token is used until the
    other system refuses it.
    """
    if isinstance(lifetime, str) and lifetime.isascii() and lifetime.isdigit():
        lifetime = int(lifetime[:12])
    if isinstance(lifetime, (int, Decimal)) and not isinstance(lifetime, bool) and 0 < lifetime <= _LONGEST:
        return now + int(lifetime) * SECOND
    return MAX_INSTANT


async def revoke(context: LinkingContext, organization: Organization, token_endpoint: str, endpoint: str, tokens: PartnerTokens) -> None:
    """Revoke the tokens at the other system (RFC 7009), if it has a revocation endpoint. A failure is ignored."""
    if not endpoint:
        return
    token, hint = (tokens.refresh, "refresh_token") if tokens.refresh else (tokens.access, "access_token")
    unauthenticated, _ = prepare_revoke_token_request(token, hint)
    body, headers = await _post_authenticated(context, organization, token_endpoint, endpoint, unauthenticated)
    try:
        await http.post_at_once(context, endpoint, body, headers)
    except UnreachableError:
        return


async def _post_authenticated(
    context: LinkingContext, organization: Organization, audience: str, endpoint: str, body: str
) -> client_authentication.AuthenticatedRequest:
    if organization.method == "none":
        return client_authentication.authenticate_by_id(organization.client_id, endpoint, body)
    return await client_authentication.authenticate_by_key(context.smart, organization.client_id, audience, endpoint, body)
