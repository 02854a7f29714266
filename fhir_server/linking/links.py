"""Stores, reads and removes a person's links to other health systems.

A link is stored as two records: the link itself and its encrypted tokens. A refresh writes only the tokens, so it cannot
restore a link that was removed at the same time.
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
from fhir_server.linking.token_endpoint import PartnerTokens
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import MINUTE, SECOND, digest, new_secret
from fhir_server.smart.core.encryption import SealedRecords
from fhir_server.smart.outbound.json_client import JsonResponse

PAGE: Final = 100  # resources of one type that are requested
_LEEWAY: Final = 30 * SECOND
_TOKENS: Final = "link-tokens"
SEALED: Final = SealedRecords(_TOKENS, token_encryption.PURPOSE)
_REFRESH_LOCK: Final = "link-renewing"
_PAUSE: Final = 0.1  # seconds between checks whether another request has finished its refresh
_EXTRA_PARAMETERS: Final = {"Observation": {"category": "laboratory"}}


class Link(msgspec.Struct, frozen=True):
    """One linked account.

    ``patient``  id of the person's Patient at the other system
    ``base``     the other system's FHIR base URL
    ``token_endpoint``, ``revocation_endpoint``  URLs; "" for no revocation endpoint. The tokens are sent only to these URLs
                 and to ``base``: if the other system moves, the person must link the account again.
    ``since``    microseconds since 1970 UTC
    """

    id: str
    organization: str = msgspec.field(name="organisation")
    base: str
    token_endpoint: str = msgspec.field(name="token")
    revocation_endpoint: str = msgspec.field(name="revocation")
    patient: str
    since: int


class SharedResources(msgspec.Struct, frozen=True):
    """Resources of one type as the other system returned them. ``more``: whether it has further ones."""

    resources: tuple[dict[str, Any], ...]
    more: bool


async def list_all(context: LinkingContext, user: User) -> tuple[Link, ...]:
    """Return the person's links, the oldest first."""
    stored = await context.smart.store.key_values.list_all(_kind(user), context.smart.now())
    return tuple(sorted((msgspec.json.decode(text, type=Link) for _, text in stored), key=lambda link: link.since))


async def find(context: LinkingContext, user: User, id: str) -> Link | None:
    """Return the person's link with this id; None if it does not exist or belongs to another person."""
    text = await context.smart.store.key_values.get(_kind(user), id, context.smart.now())
    return None if text is None else msgspec.json.decode(text, type=Link)


async def add(
    context: LinkingContext, user: User, organization: Organization, endpoints: Endpoints, patient: str, tokens: PartnerTokens
) -> Link:
    """Store a new link, and remove an earlier link of the person to the same record."""
    links, record = await list_all(context, user), (organization.id, patient)
    earlier = [link for link in links if (link.organization, link.patient) == record]
    link = Link(
        id=new_secret()[:22],
        organization=organization.id,
        base=organization.base,
        token_endpoint=endpoints.token,
        revocation_endpoint=endpoints.revocation,
        patient=patient,
        since=context.smart.now(),
    )
    await _save_tokens(context, link, tokens)
    family = organizations.link_family(link.organization)
    await context.smart.store.key_values.put(_kind(user), link.id, msgspec.json.encode(link), MAX_INSTANT, family)
    for old in earlier:
        await unlink(context, user, old)
    return link


async def unlink(context: LinkingContext, user: User, link: Link) -> bool:
    """Delete the link and revoke its tokens at the other system; False if the link was deleted before."""
    values, now = context.smart.store.key_values, context.smart.now()
    if await values.pop(_kind(user), link.id, now) is None:
        return False
    await _revoke(context, link, await values.pop(_TOKENS, link.id, now))
    return True


async def unlink_all(context: LinkingContext, user: User) -> None:
    """Delete all links of an account; used when the account is closed."""
    for link in await list_all(context, user):
        await unlink(context, user, link)


async def fetch(context: LinkingContext, user: User, link: Link, type: str) -> SharedResources:
    """Fetch the person's resources of one type from the other system.

    Raises LinkEndedError, UnreachableError, or NotSharedError if the other system does not share this type.
    """
    tokens = await get_valid_tokens(context, user, link)
    response = await _request_page(context, link, type, tokens)
    if response.status == 401:
        response = await _request_page(context, link, type, await get_valid_tokens(context, user, link, refused=tokens.access))
    if response.status == 401:
        raise LinkEndedError(ENDED)
    if response.status in (400, 403, 404, 405, 410, 422):
        raise NotSharedError("This is not shared over the link.")
    if response.status != 200 or response.body.get("resourceType") != "Bundle":
        raise UnreachableError(NO_RESPONSE)
    return _parse_searchset(response.body, type)


async def get_valid_tokens(context: LinkingContext, user: User, link: Link, refused: str = "") -> PartnerTokens:
    """Return tokens with a valid access token, refreshed if necessary.

    ``refused``  an access token that the other system has refused. Raises LinkEndedError, UnreachableError.
    """
    values, waited = context.smart.store.key_values, 0.0
    while waited < context.deadline:
        tokens = await _load_tokens(context, link)
        if tokens.expires > context.smart.now() + _LEEWAY and tokens.access != refused:
            return tokens
        # Only one request refreshes: a refresh token that is used twice counts as stolen, and the other system revokes the link.
        if await values.put_if_absent(_REFRESH_LOCK, link.id, b"", context.smart.now() + MINUTE):
            try:
                return await _refresh(context, user, link, refused)
            finally:
                await values.pop(_REFRESH_LOCK, link.id, context.smart.now())
        await asyncio.sleep(_PAUSE)
        waited += _PAUSE
    raise UnreachableError(NO_RESPONSE)


async def _refresh(context: LinkingContext, user: User, link: Link, refused: str) -> PartnerTokens:
    tokens = await _load_tokens(context, link)
    if tokens.expires > context.smart.now() + _LEEWAY and tokens.access != refused:
        return tokens  # another request has refreshed them
    organization = await organizations.find(context.smart.store, link.organization)
    if not tokens.refresh or organization is None or organization.base != link.base:
        raise LinkEndedError(ENDED)
    token_response = await token_endpoint.request_tokens(
        context, organization, link.token_endpoint, "refresh_token", refresh_token=tokens.refresh
    )
    refreshed = token_endpoint.parse_tokens(context, token_response, tokens.refresh)
    await _save_tokens(context, link, refreshed)
    if await find(context, user, link.id) is None:  # removed in the meantime
        await _revoke(context, link, await context.smart.store.key_values.pop(_TOKENS, link.id, context.smart.now()))
        raise LinkEndedError(ENDED)
    return refreshed


async def _request_page(context: LinkingContext, link: Link, type: str, tokens: PartnerTokens) -> JsonResponse:
    query = {"patient": link.patient, "_count": str(PAGE)} | _EXTRA_PARAMETERS.get(type, {})
    return await http.get(context, f"{link.base}/{type}", query, tokens.access)


def _parse_searchset(bundle: dict[str, Any], type: str) -> SharedResources:
    entries, links = bundle.get("entry"), bundle.get("link")
    resources = [entry.get("resource") for entry in _objects(entries)]
    more = any(link.get("relation") == "next" for link in _objects(links))
    return SharedResources(tuple(r for r in resources if isinstance(r, dict) and r.get("resourceType") == type), more)


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


async def _load_tokens(context: LinkingContext, link: Link) -> PartnerTokens:
    encrypted = await context.smart.store.key_values.get(_TOKENS, link.id, context.smart.now())
    if encrypted is None:
        raise LinkEndedError(ENDED)
    return msgspec.json.decode(await token_encryption.decrypt(context.smart, encrypted), type=PartnerTokens)


async def _save_tokens(context: LinkingContext, link: Link, tokens: PartnerTokens) -> None:
    encrypted = await token_encryption.encrypt(context.smart, msgspec.json.encode(tokens))
    family = organizations.link_family(link.organization)
    await context.smart.store.key_values.put(_TOKENS, link.id, encrypted, MAX_INSTANT, family)


async def _revoke(context: LinkingContext, link: Link, encrypted: bytes | None) -> None:
    organization = await organizations.find(context.smart.store, link.organization)
    if encrypted is None or organization is None:
        return
    try:
        tokens = msgspec.json.decode(await token_encryption.decrypt(context.smart, encrypted), type=PartnerTokens)
    except LinkError:
        return
    await token_endpoint.revoke(context, organization, link.token_endpoint, link.revocation_endpoint, tokens)


def _kind(user: User) -> str:
    # By the account's subject: a later account with the same user name has another subject.
    return f"link:{digest(user.subject)}"
