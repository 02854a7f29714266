"""Requests and revokes tokens at another system, with this server's client authentication there."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_token_request
from authlib.oauth2.rfc7009 import prepare_revoke_token_request

from fhir_server.linking import http
from fhir_server.linking.context import ENDED, INVALID_RESPONSE, LinkEndedError, LinkingContext, UnreachableError
from fhir_server.linking.organizations import Organization
from fhir_server.smart.core.context import SECOND
from fhir_server.smart.outbound import client_authentication

_BEARER: Final = re.compile(r"[!-~]{1,16384}", re.ASCII)


class PartnerTokens(msgspec.Struct, frozen=True):
    """Tokens of another system.

    ``refresh``  "" for none
    ``expires``  of the access token, microseconds since 1970 UTC
    """

    access: str
    refresh: str
    expires: int


async def request_tokens(
    context: LinkingContext, organization: Organization, endpoint: str, grant_type: str, **parameters: str
) -> dict[str, Any]:
    """Send a token request and return the response. Raises LinkEndedError for ``invalid_grant``, else UnreachableError."""
    body, headers = await _post_authenticated(context, organization, endpoint, endpoint, prepare_token_request(grant_type, **parameters))
    response = await http.post_form(context, endpoint, body, headers)
    if response.status in (400, 401) and response.body.get("error") == "invalid_grant":
        raise LinkEndedError(ENDED)
    if response.status != 200:
        raise UnreachableError(INVALID_RESPONSE)
    return response.body


def parse_tokens(context: LinkingContext, response: dict[str, Any], previous_refresh: str = "") -> PartnerTokens:
    """Return the tokens of a token response. Raises UnreachableError if it is invalid.

    ``previous_refresh``  the refresh token that stays valid if the response has no new one
    """
    access, refresh, lifetime = response.get("access_token"), response.get("refresh_token"), response.get("expires_in")
    is_bearer = str(response.get("token_type")).lower() == "bearer"
    if not is_bearer or not isinstance(access, str) or not _BEARER.fullmatch(access):
        raise UnreachableError(INVALID_RESPONSE)
    seconds = lifetime if isinstance(lifetime, int) and 0 <= lifetime <= 366 * 86_400 else 0
    return PartnerTokens(access, refresh if isinstance(refresh, str) else previous_refresh, context.smart.now() + seconds * SECOND)


async def revoke(context: LinkingContext, organization: Organization, token_endpoint: str, endpoint: str, tokens: PartnerTokens) -> None:
    """Revoke the tokens at the other system (RFC 7009), if it has a revocation endpoint. A failure is ignored."""
    if not endpoint:
        return
    token, hint = (tokens.refresh, "refresh_token") if tokens.refresh else (tokens.access, "access_token")
    unauthenticated, _ = prepare_revoke_token_request(token, hint)
    body, headers = await _post_authenticated(context, organization, token_endpoint, endpoint, unauthenticated)
    try:
        await http.post_form(context, endpoint, body, headers)
    except UnreachableError:
        return


async def _post_authenticated(
    context: LinkingContext, organization: Organization, audience: str, endpoint: str, body: str
) -> client_authentication.AuthenticatedRequest:
    if organization.method == "none":
        return client_authentication.authenticate_by_id(organization.client_id, endpoint, body)
    return await client_authentication.authenticate_by_key(context.smart, organization.client_id, audience, endpoint, body)
