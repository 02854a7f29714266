"""What the SCIM API does with accounts: the changes of :mod:`fhir_server.smart.accounts.administration`, under preconditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from fhir_server.linking import links
from fhir_server.linking.context import LinkingContext
from fhir_server.scim import conversion
from fhir_server.scim.models import ScimUser
from fhir_server.smart.accounts import administration, user_index, users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SmartContext, new_secret

Edit = Callable[[ScimUser], tuple[ScimUser, bool]]
"""From an account as a SCIM User to the changed one, and whether the request names the resources of the person."""
_NEW: Final = User("", "", "patient", "", "")


class NoSuchUserError(LookupError):
    """No account has this id."""


class PreconditionError(Exception):
    """The account is not in the version that ``If-Match`` names."""


async def find(smart: SmartContext, id: str) -> User:
    """The account with this id, which is its subject.  Raises NoSuchUserError."""
    user = await user_index.find_by_subject(smart.store, id)
    if user is None:
        raise NoSuchUserError
    return user


async def create(smart: SmartContext, resource: ScimUser) -> User:
    """Create an account.  Without a password none works until the person chooses one.

    Raises ValueError as :func:`~fhir_server.smart.accounts.users.create` does, or if its resources are another account's.
    """
    planned = conversion.to_account(resource, msgspec.structs.replace(_NEW, name=resource.user_name or ""), states_links=True)
    await _require_external_id(smart, planned)
    await administration.require_unused(smart.store, *sorted(planned.references))
    return await users.create(
        smart.store,
        planned.username,
        resource.password or new_secret(),
        planned.role,
        name=planned.name,
        formatted=planned.formatted,
        patient=planned.patient,
        practitioner=planned.practitioner,
        related_persons=planned.related_persons,
        external_id=planned.external_id,
        disabled=planned.disabled,
        rules=smart.passwords,
    )


async def change(smart: SmartContext, id: str, edit: Edit, if_match: str) -> User:
    """Change an account.  Raises NoSuchUserError, PreconditionError, and what ``edit`` and the change raise."""
    found = await find(smart, id)
    edited, _ = edit(conversion.to_scim(found, smart.origin))
    hashed = ""
    if edited.password:
        hashed = await users.hash_password(edited.password, smart.passwords, (found.username, found.name))

    def alter(user: User) -> User:
        if user.subject != id:
            raise NoSuchUserError
        if not matches(if_match, user):
            raise PreconditionError
        resource, states_links = edit(conversion.to_scim(user, smart.origin))
        changed = conversion.to_account(resource, user, states_links=states_links)
        return msgspec.structs.replace(changed, password_hash=hashed, password_set_at=smart.now()) if hashed else changed

    await _require_external_id(smart, alter(found))
    try:
        before, after = await administration.change(smart.store, found.username, alter, smart.now())
    except administration.UnknownUserError:
        raise NoSuchUserError from None
    if before.role != after.role:
        await links.unlink_all(LinkingContext(smart), before)
    return await find(smart, after.subject)


async def remove(smart: SmartContext, id: str, if_match: str) -> User:
    """Remove an account with all it has, and return it as it was.  Raises NoSuchUserError and PreconditionError."""
    user = await find(smart, id)
    async with users.locked(smart.store, user.username):
        user = await find(smart, id)
        if not matches(if_match, user):
            raise PreconditionError
        await users.remove_locked(smart.store, user.username, smart.now())
    await links.unlink_all(LinkingContext(smart), user)
    return user


def matches(etags: str, user: User) -> bool:
    """Whether a header ``If-Match`` or ``If-None-Match`` names the account's version; an empty one does."""
    given = {each.strip().removeprefix("W/") for each in etags.split(",")}
    return not etags or "*" in given or conversion.version(user).removeprefix("W/") in given


async def _require_external_id(smart: SmartContext, user: User) -> None:
    """Raise TakenReferenceError if the external id is another account's."""
    other = await user_index.find_by_external_id(smart.store, user.external_id) if user.external_id else None
    if other is not None and other.subject != user.subject:
        raise administration.TakenReferenceError("This externalId belongs to another account.")
