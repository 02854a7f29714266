"""Stores and removes a person's links to other health systems.

A link is stored as up to three records: the link itself, its tokens, and whose record it is; the last two are encrypted. A refresh
writes only the tokens, so it cannot restore a link that was removed at the same time.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.linking import link_tokens, organizations, token_encryption
from fhir_server.linking.context import LinkEndedError, LinkingContext
from fhir_server.linking.discovery import Endpoints
from fhir_server.linking.link_tokens import Link
from fhir_server.linking.organizations import Organization
from fhir_server.linking.persons import RecordPerson
from fhir_server.linking.token_endpoint import PartnerTokens
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import new_secret
from fhir_server.smart.core.encryption import SealedRecords

__all__ = ["Link", "add", "find", "find_person", "list_all", "save_person", "unlink", "unlink_all"]
_PERSONS: Final = "link-person"
SEALED: Final = (link_tokens.SEALED, SealedRecords(_PERSONS, token_encryption.PURPOSE))


async def list_all(context: LinkingContext, user: User) -> tuple[Link, ...]:
    """Return the person's links, the oldest first."""
    stored = await context.smart.store.key_values.list_all(link_tokens.kind(user), context.smart.now())
    return tuple(sorted((msgspec.json.decode(text, type=Link) for _, text in stored), key=lambda link: link.since))


async def find(context: LinkingContext, user: User, id: str) -> Link | None:
    """Return the person's link with this id; None if it does not exist or belongs to another person."""
    text = await context.smart.store.key_values.get(link_tokens.kind(user), id, context.smart.now())
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
    await link_tokens.save(context, link, tokens)
    family = organizations.link_family(link.organization)
    await context.smart.store.key_values.put(link_tokens.kind(user), link.id, msgspec.json.encode(link), MAX_INSTANT, family)
    for old in earlier:
        await unlink(context, user, old)
    return link


async def unlink(context: LinkingContext, user: User, link: Link) -> bool:
    """Delete the link and revoke its tokens at the other system; False if the link was deleted before."""
    values, now = context.smart.store.key_values, context.smart.now()
    if await values.pop(link_tokens.kind(user), link.id, now) is None:
        return False
    await values.pop(_PERSONS, link.id, now)
    await link_tokens.revoke(context, link)
    return True


async def unlink_all(context: LinkingContext, user: User) -> None:
    """Delete all links of an account; used when the account is closed."""
    for link in await list_all(context, user):
        await unlink(context, user, link)


async def save_person(context: LinkingContext, user: User, link: Link, person: RecordPerson) -> None:
    """Store whose record the link is, as the other system states it."""
    if await find_person(context, link) == person:
        return
    values, encrypted = context.smart.store.key_values, await token_encryption.encrypt(context.smart, msgspec.json.encode(person))
    try:
        await values.put(_PERSONS, link.id, encrypted, MAX_INSTANT, organizations.link_family(link.organization))
    except Problem as problem:
        if problem.kind == "read_only":
            return  # the page shows the person all the same
        raise
    if await find(context, user, link.id) is None:  # removed in the meantime
        await values.pop(_PERSONS, link.id, context.smart.now())


async def find_person(context: LinkingContext, link: Link) -> RecordPerson | None:
    """Return whose record the link is; None if the other system has not stated it, or the stored statement cannot be decrypted."""
    encrypted = await context.smart.store.key_values.get(_PERSONS, link.id, context.smart.now())
    if encrypted is None:
        return None
    try:
        return msgspec.json.decode(await token_encryption.decrypt(context.smart, encrypted), type=RecordPerson)
    except LinkEndedError:
        return None
