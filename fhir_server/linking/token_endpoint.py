"""What we ask of another system's token and revocation endpoints, and how we prove who we are there."""

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


class HeldTokens(msgspec.Struct, frozen=True):
    """Another system's tokens; ``refresh`` "" for none, ``expires`` (of the access token) in microseconds."""

    access: str
    refresh: str
    expires: int


async def request_tokens(
    context: LinkingContext, organization: Organization, endpoint: str, grant_type: str, **given: str
) -> dict[str, Any]:
    """A token endpoint's answer.  Raises Ended if the grant (code, refresh token) is refused, Unreachable otherwise."""
    body, headers = await _post_authenticated(context, organization, endpoint, endpoint, prepare_token_request(grant_type, **given))
    reply = await http.post_form(context, endpoint, body, headers)
    if reply.status in (400, 401) and reply.body.get("error") == "invalid_grant":
        raise LinkEndedError(ENDED)
    if reply.status != 200:
        raise UnreachableError(INVALID_RESPONSE)
    return reply.body


def parse_tokens(context: LinkingContext, answer: dict[str, Any], before: str = "") -> HeldTokens:
    """The tokens of an answer; ``before`` is the refresh token that stays good if no new one came.  Raises Unreachable."""
    access, refresh, life = answer.get("access_token"), answer.get("refresh_token"), answer.get("expires_in")
    bearer = str(answer.get("token_type")).lower() == "bearer"
    if not bearer or not isinstance(access, str) or not _BEARER.fullmatch(access):
        raise UnreachableError(INVALID_RESPONSE)
    seconds = life if isinstance(life, int) and 0 <= life <= 366 * 86_400 else 0
    return HeldTokens(access, refresh if isinstance(refresh, str) else before, context.smart.now() + seconds * SECOND)


async def revoke(context: LinkingContext, organization: Organization, token_endpoint: str, endpoint: str, tokens: HeldTokens) -> None:
    """Ask the other system to end these tokens (RFC 7009), whatever comes of it."""
    if not endpoint:
        return
    token, hint = (tokens.refresh, "refresh_token") if tokens.refresh else (tokens.access, "access_token")
    plain, _ = prepare_revoke_token_request(token, hint)
    body, headers = await _post_authenticated(context, organization, token_endpoint, endpoint, plain)
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
