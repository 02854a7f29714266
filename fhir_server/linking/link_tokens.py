"""The tokens of a link: stored encrypted, refreshed when they have expired or were refused, revoked when the link is removed."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.linking import organizations, token_encryption, token_endpoint
from fhir_server.linking.context import ENDED, SLOW, LinkEndedError, LinkError, LinkingContext, SlowError, log_failure
from fhir_server.linking.token_endpoint import PartnerTokens
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import MINUTE, SECOND, digest
from fhir_server.smart.core.encryption import SealedRecords

_TOKENS: Final = "link-tokens"
SEALED: Final = SealedRecords(_TOKENS, token_encryption.PURPOSE)
_LEEWAY: Final = 30 * SECOND
_REFRESH_LOCK: Final = "link-renewing"
_PAUSE: Final = 0.1  # seconds between checks whether another request has finished its refresh


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


async def get_valid(context: LinkingContext, user: User, link: Link, refused: str = "") -> PartnerTokens:
    """Return tokens with a valid access token, refreshed if necessary.

    ``refused``  an access token that the other system has refused. Raises LinkEndedError, UnreachableError.
    """
    values, waited = context.smart.store.key_values, 0.0
    while waited < context.deadline:
        tokens = await _load(context, link)
        if _is_valid(context, tokens, refused):
            return tokens
        # Only one request refreshes: a refresh token that is used twice counts as stolen, and the other system revokes the link.
        if await values.put_if_absent(_REFRESH_LOCK, link.id, b"", context.smart.now() + MINUTE):
            try:
                return await _refresh(context, user, link, refused)
            finally:
                await values.pop(_REFRESH_LOCK, link.id, context.smart.now())
        await asyncio.sleep(_PAUSE)
        waited += _PAUSE
    raise SlowError(SLOW, "a refresh of its tokens by another request did not end")


def _is_valid(context: LinkingContext, tokens: PartnerTokens, refused: str) -> bool:
    # Without a refresh token there is nothing to do early.
    leeway = _LEEWAY if tokens.refresh else 0
    return tokens.access != refused and tokens.expires > context.smart.now() + leeway


async def _refresh(context: LinkingContext, user: User, link: Link, refused: str) -> PartnerTokens:
    tokens = await _load(context, link)
    if _is_valid(context, tokens, refused):
        return tokens  # another request has refreshed them
    organization = await organizations.find(context.smart.store, link.organization)
    if not tokens.refresh or organization is None or organization.base != link.base:
        raise LinkEndedError(ENDED)
    try:
        token_response = await token_endpoint.request_tokens(
            context, organization, link.token_endpoint, "refresh_token", refresh_token=tokens.refresh
        )
        refreshed = token_endpoint.parse_tokens(context, token_response, tokens.refresh, tokens.scope)
    except LinkError as problem:
        log_failure(organization, "refresh of a link", problem.cause)
        raise
    await save(context, link, refreshed)
    if await context.smart.store.key_values.get(kind(user), link.id, context.smart.now()) is None:  # removed in the meantime
        await revoke(context, link)
        raise LinkEndedError(ENDED)
    return refreshed


async def _load(context: LinkingContext, link: Link) -> PartnerTokens:
    encrypted = await context.smart.store.key_values.get(_TOKENS, link.id, context.smart.now())
    if encrypted is None:
        raise LinkEndedError(ENDED)
    return msgspec.json.decode(await token_encryption.decrypt(context.smart, encrypted), type=PartnerTokens)


async def save(context: LinkingContext, link: Link, tokens: PartnerTokens) -> None:
    """Store the tokens of a link, encrypted."""
    encrypted = await token_encryption.encrypt(context.smart, msgspec.json.encode(tokens))
    family = organizations.link_family(link.organization)
    await context.smart.store.key_values.put(_TOKENS, link.id, encrypted, MAX_INSTANT, family)


async def revoke(context: LinkingContext, link: Link) -> None:
    """Delete the tokens of a link, and revoke them at the other system. A failure there is ignored."""
    encrypted = await context.smart.store.key_values.pop(_TOKENS, link.id, context.smart.now())
    organization = await organizations.find(context.smart.store, link.organization)
    if encrypted is None or organization is None:
        return
    try:
        tokens = msgspec.json.decode(await token_encryption.decrypt(context.smart, encrypted), type=PartnerTokens)
    except LinkError:
        return
    await token_endpoint.revoke(context, organization, link.token_endpoint, link.revocation_endpoint, tokens)


def kind(user: User) -> str:
    """Return the kind of the key-value records of a person's links."""
    # By the account's subject: a later account with the same user name has another subject.
    return f"link:{digest(user.subject)}"
