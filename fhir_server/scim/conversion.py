"""Accounts as SCIM Users, and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec
from scim2_models import Meta

from fhir_server.scim.models import EXTENSION, PATH, FhirUser, Name, RelatedPersonLink, ScimUser, UserRole
from fhir_server.smart.accounts import administration, users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.persons import Role, own_reference

_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)  # R4's ids
_MOST_LINKS: Final = 100


class Links(NamedTuple):
    """The ids of the resources that represent a person."""

    patient: str | None
    practitioner: str | None
    related_persons: tuple[str, ...]


def version(user: User) -> str:
    """The weak ETag of an account (RFC 7644 3.14)."""
    return f'W/"{sha256(msgspec.json.encode(user)).hexdigest()[:24]}"'


def to_scim(user: User, origin: str) -> ScimUser:
    """The account as a SCIM User.  It has no password."""
    resource = ScimUser(
        id=user.subject,
        external_id=user.external_id or None,
        user_name=user.username,
        name=Name(formatted=user.formatted or user.name),
        display_name=user.name,
        active=not user.disabled,
        roles=[UserRole(value=UserRole.Value(user.role))],
        meta=Meta(
            resource_type="User",
            created=_instant(user.created),
            last_modified=_instant(user.changed),
            location=f"{origin}{PATH}/Users/{user.subject}",
            version=version(user),
        ),
    )
    resource[FhirUser] = FhirUser(
        patient=user.patient,
        practitioner=user.practitioner,
        related_persons=[RelatedPersonLink(value=id) for id in user.related_persons] or None,
        fhir_user=own_reference(user.person()),
    )
    return resource


def to_account(resource: ScimUser, user: User, *, states_links: bool) -> User:
    """The account as the SCIM User describes it; what it leaves out stays.  Raises ValueError for values that cannot be.

    ``states_links``: whether the request named the resources of the person.  If it did not and the role changes, the account
    has none afterwards, so that nothing of the former role stays by accident.
    """
    username = users.new_name(resource.user_name) if resource.user_name else user.username
    changed = msgspec.structs.replace(
        user,
        username=username,
        external_id=_external_id(resource.external_id),
        disabled=user.disabled if resource.active is None else not resource.active,
    )
    changed = _with_names(changed, resource)
    role, links = role_of(resource) or user.role, links_of(resource) if states_links else of_account(user)
    if role != user.role:
        kept = links if states_links else Links(None, None, ())
        return administration.with_role(changed, role, **kept._asdict())
    return changed if links == of_account(user) else administration.with_links(changed, **links._asdict())


def role_of(resource: ScimUser) -> Role | None:
    """The role; None if none is given.  Raises ValueError for several."""
    given: set[Role] = {role.value.value for role in resource.roles or () if role.value is not None}
    if len(given) > 1:
        raise ValueError("An account has one role: patient, clinician, billing or privacy.")
    return given.pop() if given else None


def links_of(resource: ScimUser) -> Links:
    """The resources of the person.  Raises ValueError for what is no id."""
    given: FhirUser = resource[FhirUser] or FhirUser()
    related = tuple(_id(link.value or "") for link in given.related_persons or ())
    if len(related) > _MOST_LINKS:
        raise ValueError(f"An account has at most {_MOST_LINKS} relatedPersons.")
    patient = _id(given.patient) if given.patient else None
    practitioner = _id(given.practitioner) if given.practitioner else None
    return Links(patient, practitioner, related)


def of_account(user: User) -> Links:
    """The resources of an account's person."""
    return Links(user.patient, user.practitioner, user.related_persons)


def states_links(payload: object) -> bool:
    """Whether the body of a request names the extension, as a member or in the path of an operation."""
    if isinstance(payload, dict):
        named = any(str(name).lower().startswith(EXTENSION.lower()) for name in payload)
        path = str(payload.get("path", "")).lower().startswith(EXTENSION.lower())
        return named or path or any(states_links(value) for name, value in payload.items() if name in ("Operations", "value"))
    return isinstance(payload, list) and any(map(states_links, payload))


def _with_names(user: User, resource: ScimUser) -> User:
    """The account with the names of the resource.  Where they were one name, a change of one of them changes both."""
    display, formatted = resource.display_name or "", (resource.name.formatted if resource.name else "") or ""
    if not user.formatted and user.name in (display, formatted):
        display = formatted = next((name for name in (display, formatted) if name and name != user.name), user.name)
    shown = display or formatted or user.name
    if (shown, formatted) in ((user.name, user.formatted), (user.name, user.name)):
        return user
    formatted = administration.displayable(formatted or shown)
    shown = administration.displayable(shown)
    return msgspec.structs.replace(user, name=shown, formatted="" if formatted == shown else formatted)


def _external_id(given: str | None) -> str:
    if given and (len(given) > users.MAX_NAME or not given.isprintable()):
        raise ValueError(f"An externalId must have 1 to {users.MAX_NAME} printable characters.")
    return given or ""


def _id(given: str) -> str:
    if not _ID.fullmatch(given):
        raise ValueError("The id of a FHIR resource has 1 to 64 letters, digits, - and .")
    return given


def _instant(micros: int) -> datetime | None:
    return datetime.fromtimestamp(micros // 1000 / 1000, UTC) if micros else None
