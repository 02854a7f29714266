"""A person's links: kept under her account, read through, cut.

Two records make a link: what it is, and its sealed tokens.  Renewing replaces only the second, so that it cannot
bring back a link that has just been cut.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.linking import http, organizations, token_encryption, token_endpoint
from fhir_server.linking.context import ENDED, NO_RESPONSE, LinkEndedError, LinkError, LinkingContext, NotSharedError, UnreachableError
from fhir_server.linking.discovery import Endpoints
from fhir_server.linking.organizations import Organization
from fhir_server.linking.token_endpoint import HeldTokens
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import MINUTE, SECOND, digest, new_secret
from fhir_server.smart.outbound.json_client import JsonResponse

PAGE: Final = 100  # rows of one kind that are asked for
_LEEWAY: Final = 30 * SECOND
_TOKENS: Final = "link-tokens"
_RENEWING: Final = "link-renewing"
_PAUSE: Final = 0.1  # seconds between looks at a renewal that someone else is making
_NARROWED: Final = {"Observation": {"category": "laboratory"}}


class Link(msgspec.Struct, frozen=True):
    """One linked account.

    ``patient``  id of the person's record there
    ``base``, ``token``, ``revocation``  where its tokens came from and may go; a move there means linking again
    ``since``    microseconds
    """

    id: str
    organization: str = msgspec.field(name="organisation")
    base: str
    token: str
    revocation: str
    patient: str
    since: int


class Shared(msgspec.Struct, frozen=True):
    """What the other system says of one kind: resources as parsed, and whether it has more than these."""

    resources: tuple[dict[str, Any], ...]
    more: bool


async def list_all(context: LinkingContext, user: User) -> tuple[Link, ...]:
    """This person's links, oldest first."""
    kept = await context.smart.store.key_values.list_all(_kind(user), context.smart.now())
    return tuple(sorted((msgspec.json.decode(text, type=Link) for _, text in kept), key=lambda link: link.since))


async def find(context: LinkingContext, user: User, id: str) -> Link | None:
    """The link of this id, if it is this person's."""
    text = await context.smart.store.key_values.get(_kind(user), id, context.smart.now())
    return None if text is None else msgspec.json.decode(text, type=Link)


async def keep(
    context: LinkingContext, user: User, organization: Organization, endpoints: Endpoints, patient: str, tokens: HeldTokens
) -> Link:
    """A new link, in place of an earlier one to the same record there."""
    kept, record = await list_all(context, user), (organization.id, patient)
    earlier = [link for link in kept if (link.organization, link.patient) == record]
    link = Link(
        id=new_secret()[:22],
        organization=organization.id,
        base=organization.base,
        token=endpoints.token,
        revocation=endpoints.revocation,
        patient=patient,
        since=context.smart.now(),
    )
    await _save_tokens(context, link, tokens)
    family = organizations.family(link.organization)
    await context.smart.store.key_values.put(_kind(user), link.id, msgspec.json.encode(link), MAX_INSTANT, family)
    for old in earlier:
        await unlink(context, user, old)
    return link


async def unlink(context: LinkingContext, user: User, link: Link) -> bool:
    """Forget the link, and ask the other system to end our access; False if it was gone already."""
    secrets, now = context.smart.store.key_values, context.smart.now()
    if await secrets.pop(_kind(user), link.id, now) is None:
        return False
    await _revoke(context, link, await secrets.pop(_TOKENS, link.id, now))
    return True


async def unlink_all(context: LinkingContext, user: User) -> None:
    """For an account that is being closed."""
    for link in await list_all(context, user):
        await unlink(context, user, link)


async def fetch(context: LinkingContext, user: User, link: Link, type: str) -> Shared:
    """What the other system says now about this person, of one resource type.

    Raises Ended, Unreachable, or NotShared where it does not give out this type.
    """
    tokens = await valid_tokens(context, user, link)
    reply = await _request_page(context, link, type, tokens)
    if reply.status == 401:
        reply = await _request_page(context, link, type, await valid_tokens(context, user, link, refused=tokens.access))
    if reply.status == 401:
        raise LinkEndedError(ENDED)
    if reply.status in (400, 403, 404, 405, 410, 422):
        raise NotSharedError("This is not shared over the link.")
    if reply.status != 200 or reply.body.get("resourceType") != "Bundle":
        raise UnreachableError(NO_RESPONSE)
    return _searchset(reply.body, type)


async def valid_tokens(context: LinkingContext, user: User, link: Link, refused: str = "") -> HeldTokens:
    """Tokens that are good now, renewed if need be; ``refused``: an access token known not to be.

    Raises Ended, Unreachable.
    """
    secrets, waited = context.smart.store.key_values, 0.0
    while waited < context.deadline:
        tokens = await _load_tokens(context, link)
        if tokens.expires > context.smart.now() + _LEEWAY and tokens.access != refused:
            return tokens
        # One at a time: a refresh token used twice is taken for a stolen one, and ends the link over there.
        if await secrets.put_if_absent(_RENEWING, link.id, b"", context.smart.now() + MINUTE):
            try:
                return await _refresh(context, user, link, refused)
            finally:
                await secrets.pop(_RENEWING, link.id, context.smart.now())
        await asyncio.sleep(_PAUSE)
        waited += _PAUSE
    raise UnreachableError(NO_RESPONSE)


async def _refresh(context: LinkingContext, user: User, link: Link, refused: str) -> HeldTokens:
    tokens = await _load_tokens(context, link)
    if tokens.expires > context.smart.now() + _LEEWAY and tokens.access != refused:
        return tokens  # by whoever held the turn before us
    organization = await organizations.find(context.smart.store, link.organization)
    if not tokens.refresh or organization is None or organization.base != link.base:
        raise LinkEndedError(ENDED)
    answer = await token_endpoint.request_tokens(context, organization, link.token, "refresh_token", refresh_token=tokens.refresh)
    fresh = token_endpoint.parse_tokens(context, answer, tokens.refresh)
    await _save_tokens(context, link, fresh)
    if await find(context, user, link.id) is None:  # cut meanwhile
        await _revoke(context, link, await context.smart.store.key_values.pop(_TOKENS, link.id, context.smart.now()))
        raise LinkEndedError(ENDED)
    return fresh


async def _request_page(context: LinkingContext, link: Link, type: str, tokens: HeldTokens) -> JsonResponse:
    query = {"patient": link.patient, "_count": str(PAGE)} | _NARROWED.get(type, {})
    return await http.get(context, f"{link.base}/{type}", query, tokens.access)


def _searchset(bundle: dict[str, Any], type: str) -> Shared:
    entries, links = bundle.get("entry"), bundle.get("link")
    found = [entry.get("resource") for entry in _objects(entries)]
    more = any(link.get("relation") == "next" for link in _objects(links))
    return Shared(tuple(r for r in found if isinstance(r, dict) and r.get("resourceType") == type), more)


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


async def _load_tokens(context: LinkingContext, link: Link) -> HeldTokens:
    sealed = await context.smart.store.key_values.get(_TOKENS, link.id, context.smart.now())
    if sealed is None:
        raise LinkEndedError(ENDED)
    return msgspec.json.decode(await token_encryption.decrypt(context.smart, sealed), type=HeldTokens)


async def _save_tokens(context: LinkingContext, link: Link, tokens: HeldTokens) -> None:
    sealed = await token_encryption.encrypt(context.smart, msgspec.json.encode(tokens))
    family = organizations.family(link.organization)
    await context.smart.store.key_values.put(_TOKENS, link.id, sealed, MAX_INSTANT, family)


async def _revoke(context: LinkingContext, link: Link, sealed: bytes | None) -> None:
    organization = await organizations.find(context.smart.store, link.organization)
    if sealed is None or organization is None:
        return
    try:
        tokens = msgspec.json.decode(await token_encryption.decrypt(context.smart, sealed), type=HeldTokens)
    except LinkError:
        return
    await token_endpoint.revoke(context, organization, link.token, link.revocation, tokens)


def _kind(user: User) -> str:
    # By the account's subject, which a later account of the same user name does not share.
    return f"link:{digest(user.subject)}"
