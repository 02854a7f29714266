"""Making a link: to the other system's own sign-in and back (SMART App Launch 2.2, standalone launch, PKCE)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from fhir_server.linking import id_token, links, organizations, token_endpoint
from fhir_server.linking.context import LinkEndedError, LinkError, LinkingContext
from fhir_server.linking.discovery import Endpoints, discover
from fhir_server.linking.links import Link
from fhir_server.linking.organizations import Organization
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import REQUEST_LIFE, digest, new_secret

SCOPE: Final = "launch/patient openid fhirUser offline_access patient/*.rs"
_KIND: Final = "link-state"
_RECORD: Final = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)
_UNKNOWN: Final = "This health system is not one that can be linked."
_STALE: Final = "This answer does not belong to a link you have just started here. Start again from your linked accounts."
_DENIED: Final = "You chose not to share at the other health system. Nothing was linked."
_REFUSED: Final = "The other health system did not agree to the link. Nothing was linked."
_NO_RECORD: Final = "The other health system did not say which record is yours. Nothing was linked."


class _PendingLink(msgspec.Struct, frozen=True):
    """A link under way: for whom, to whom, and what the answer must fit."""

    subject: str
    organization: Organization = msgspec.field(name="organisation")
    endpoints: Endpoints
    verifier: str
    nonce: str


async def start(context: LinkingContext, user: User, organisation_id: str) -> tuple[Organization, str]:
    """The organisation, and the address at which this person signs in there.  Raises LinkProblem."""
    organization = await organizations.find(context.smart.store, organisation_id)
    if organization is None:
        raise LinkError(_UNKNOWN)
    endpoints = await discover(context, organization)
    state, asked = new_secret(), _PendingLink(user.subject, organization, endpoints, new_secret(), new_secret())
    expires, family = context.smart.now() + REQUEST_LIFE, organizations.family(organization.id)
    await context.smart.store.key_values.put(_KIND, digest(state), msgspec.json.encode(asked), expires, family)
    url = prepare_grant_uri(
        endpoints.authorization,
        organization.client_id,
        "code",
        redirect_uri=context.redirect_uri,
        scope=SCOPE,
        state=state,
        aud=organization.base,
        nonce=asked.nonce,
        code_challenge=create_s256_code_challenge(asked.verifier),
        code_challenge_method="S256",
    )
    return organization, str(url)


async def finish(context: LinkingContext, user: User, pairs: Iterable[tuple[str, str]]) -> Link:
    """The link that the query of a callback completes.  Raises LinkProblem, and then nothing is kept of it."""
    received = list(pairs)
    given = dict(received)
    asked = await _take_pending(context, given.get("state", ""))
    if asked is None or asked.subject != user.subject or len(given) != len(received):
        raise LinkError(_STALE)
    organization, endpoints = asked.organization, asked.endpoints
    if await organizations.find(context.smart.store, organization.id) != organization:
        raise LinkError(_STALE)
    _check_answer(endpoints, given)
    proof = {"code": given["code"], "redirect_uri": context.redirect_uri, "code_verifier": asked.verifier}
    try:
        answer = await token_endpoint.request_tokens(context, organization, endpoints.token, "authorization_code", **proof)
    except LinkEndedError:
        raise LinkError(_REFUSED) from None
    tokens = token_endpoint.parse_tokens(context, answer)
    try:
        await id_token.check(context, organization, endpoints, asked.nonce, answer.get("id_token"), tokens.access)
        return await links.keep(context, user, organization, endpoints, _record(answer.get("patient")), tokens)
    except LinkError:
        await token_endpoint.revoke(context, organization, endpoints.token, endpoints.revocation, tokens)
        raise


def host(url: str) -> str:
    """Where the person is about to be sent, in the words of an address bar."""
    return urlsplit(url).netloc


async def _take_pending(context: LinkingContext, state: str) -> _PendingLink | None:
    text = await context.smart.store.key_values.pop(_KIND, digest(state), context.smart.now())
    return None if text is None else msgspec.json.decode(text, type=_PendingLink)


def _check_answer(endpoints: Endpoints, given: dict[str, str]) -> None:
    # Who answers comes first, errors included: another server's answer must not pass for this one's (RFC 9207 2.4).
    if given.get("iss", endpoints.issuer) != endpoints.issuer or (endpoints.names_itself and "iss" not in given):
        raise LinkError(_STALE)
    if "error" in given:
        raise LinkError(_DENIED if given["error"] == "access_denied" else _REFUSED)
    if not given.get("code"):
        raise LinkError(_REFUSED)


def _record(id: object) -> str:
    if not isinstance(id, str) or not _RECORD.fullmatch(id):
        raise LinkError(_NO_RECORD)
    return id
