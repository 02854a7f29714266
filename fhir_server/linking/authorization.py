"""Creates a link: the authorization request to the other system and its response (SMART App Launch 2.2, standalone launch)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from fhir_server.linking import id_token, links, organizations, token_endpoint
from fhir_server.linking.context import LinkEndedError, LinkError, LinkingContext, log_failure
from fhir_server.linking.discovery import Endpoints, discover
from fhir_server.linking.links import Link
from fhir_server.linking.organizations import Organization
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import REQUEST_LIFE, digest, new_secret

_KIND: Final = "link-state"
_RECORD: Final = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)
_UNKNOWN: Final = "You cannot link an account at this health system."
_STALE: Final = "This response does not belong to a link that you just started. Start again from your linked accounts."
_DENIED: Final = "You did not allow access at the other health system. The account was not linked."
_REFUSED: Final = "The other health system refused the link. The account was not linked."
_NO_RECORD: Final = "The other health system did not state which record is yours. The account was not linked."


class _PendingLink(msgspec.Struct, frozen=True):
    """An authorization request that was sent: the account, the other system, and what the response must match."""

    subject: str
    organization: Organization = msgspec.field(name="organisation")
    endpoints: Endpoints
    verifier: str
    nonce: str


async def start(context: LinkingContext, user: User, organization_id: str) -> tuple[Organization, str]:
    """Start a link. Return the organization and the URL at which the person signs in there. Raises LinkError."""
    organization = await organizations.find(context.smart.store, organization_id)
    if organization is None:
        raise LinkError(_UNKNOWN)
    endpoints = await discover(context, organization)
    state, pending = new_secret(), _PendingLink(user.subject, organization, endpoints, new_secret(), new_secret())
    expires, family = context.smart.now() + REQUEST_LIFE, organizations.link_family(organization.id)
    await context.smart.store.key_values.put(_KIND, digest(state), msgspec.json.encode(pending), expires, family)
    url = prepare_grant_uri(
        endpoints.authorization,
        organization.client_id,
        "code",
        redirect_uri=context.redirect_uri(organization),
        scope=endpoints.scope,
        state=state,
        aud=organization.base,
        nonce=pending.nonce,
        code_challenge=create_s256_code_challenge(pending.verifier),
        code_challenge_method="S256",
    )
    return organization, str(url)


async def finish(context: LinkingContext, user: User, parameters: Iterable[tuple[str, str]], callback: str = "") -> Link:
    """Complete a link from the query parameters of the redirect back. Raises LinkError; then the tokens are revoked and not stored.

    ``callback``  the organization that the redirect URI names; "" for the redirect URI that earlier registrations share
    """
    received = list(parameters)
    response = dict(received)
    pending = await _take_pending(context, response.get("state", ""))
    if pending is None or pending.subject != user.subject or len(response) != len(received):
        raise LinkError(_STALE)
    organization, endpoints = pending.organization, pending.endpoints
    if await organizations.find(context.smart.store, organization.id) != organization:
        raise LinkError(_STALE)
    # A response at another redirect URI was given by another authorization server than the request was for (RFC 9700 4.4).
    if callback != (organization.id if organization.own_redirect_uri else ""):
        log_failure(organization, "a link was refused", "its response came to the redirect URI of another organization")
        raise LinkError(_STALE)
    _check_response(organization, endpoints, response)
    code = {"code": response["code"], "redirect_uri": context.redirect_uri(organization), "code_verifier": pending.verifier}
    try:
        token_response = await token_endpoint.request_tokens(context, organization, endpoints.token, "authorization_code", **code)
    except LinkEndedError as refusal:
        log_failure(organization, "a link was refused", refusal.cause)
        raise LinkError(_REFUSED) from None
    tokens = token_endpoint.parse_tokens(context, token_response, scope=endpoints.scope)
    try:
        await id_token.check(context, organization, endpoints, pending.nonce, token_response.get("id_token"), tokens.access)
        return await links.add(context, user, organization, endpoints, _parse_record_id(token_response.get("patient")), tokens)
    except LinkError:
        await token_endpoint.revoke(context, organization, endpoints.token, endpoints.revocation, tokens)
        raise


def host_of(url: str) -> str:
    """Return the host of ``url``, as the address bar of a browser shows it."""
    return urlsplit(url).netloc


async def _take_pending(context: LinkingContext, state: str) -> _PendingLink | None:
    text = await context.smart.store.key_values.pop(_KIND, digest(state), context.smart.now())
    return None if text is None else msgspec.json.decode(text, type=_PendingLink)


def _check_response(organization: Organization, endpoints: Endpoints, response: dict[str, str]) -> None:
    # Check the issuer first, also of errors: another server's response must not be accepted as this one's (RFC 9207 2.4).
    if response.get("iss", endpoints.issuer) != endpoints.issuer or (endpoints.sends_issuer and "iss" not in response):
        log_failure(organization, "a link was refused", "iss is missing in its response, or is not its issuer (RFC 9207)")
        raise LinkError(_STALE)
    if "error" in response:
        if response["error"] == "access_denied":
            raise LinkError(_DENIED)
        log_failure(organization, "a link was refused", f"its response has the error {token_endpoint.quote_code(response['error'])}")
        raise LinkError(_REFUSED)
    if not response.get("code"):
        raise LinkError(_REFUSED)


def _parse_record_id(id: object) -> str:
    if not isinstance(id, str) or not _RECORD.fullmatch(id):
        raise LinkError(_NO_RECORD)
    return id
