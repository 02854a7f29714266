"""Merges two accounts of one person.  It cannot be undone.

One account is kept, with its user name, password, second factor, links to identity providers and to other organizations, and its
grants to apps.  It gets the other's own Patient, Practitioner and RelatedPersons, so it opens the records of both and no others.
The other account ends with all it has: sessions, grants, second factor and links.  What people granted in the record itself
(Consents) names RelatedPersons and Patients, and so goes on with them.  The sessions of both end.
"""

from __future__ import annotations

from fhir_server.smart.accounts import administration, identity_providers, users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core import session_ends
from fhir_server.store import Store


async def merge(store: Store, kept: str, ended: str, now: int) -> tuple[User, User]:
    """Merge the account ``ended`` into ``kept``.  Returns the account that remains, and the other as it was.

    Can be repeated after an interruption.  Raises ValueError, with a message for the operator, if the accounts cannot be of one
    person or do not have one role; TimeoutError if other changes take ten seconds.
    """
    names = users.canonical(kept), users.canonical(ended)
    async with users.locked(store, *names):
        keep, end = await administration.require(store, kept), await administration.require(store, ended)
        merged = combined(keep, end)
        result = await administration.apply(store, keep, merged, now) if merged != keep else keep
        await session_ends.end_all(store, keep.username)
        for identity in await identity_providers.list_linked_identities(store):
            if identity.subject == end.subject:
                await identity_providers.unlink(store, identity.issuer, identity.sub)
        await users.remove_locked(store, end.username, now)
        for key in users.index_keys(result):  # those that the other account had before
            await users.index(store, key, result)
    return result, end


def combined(keep: User, end: User) -> User:
    """Return the account to keep with the resources of both.  Raises ValueError if they cannot be of one person."""
    if keep.username == end.username:
        raise ValueError("An account cannot be merged with itself.")
    for user in (keep, end):
        if user.disabled:
            raise ValueError(f"The account {user.username!r} is locked. Unlock it first, or remove it.")
    if keep.role != end.role:
        raise ValueError(f"{keep.username!r} has the role {keep.role}, {end.username!r} the role {end.role}: these cannot be merged.")
    for name, own, other in (("Patient", keep.patient, end.patient), ("Practitioner", keep.practitioner, end.practitioner)):
        if own and other and own != other:
            raise ValueError(f"{keep.username!r} is {name}/{own}, {end.username!r} is {name}/{other}: these are different people.")
    return administration.with_links(
        keep,
        patient=keep.patient or end.patient,
        practitioner=keep.practitioner or end.practitioner,
        related_persons=(*keep.related_persons, *end.related_persons),
    )
