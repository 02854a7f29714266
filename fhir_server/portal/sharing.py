"""Friends and family access: adults share their own record with other people, and end that access.

Each change is one transaction, which checks again that the person may share the record. It takes effect with the next request.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Final

from fhir_server import jsontext
from fhir_server.access.view import View
from fhir_server.portal import activation_codes, proxy_grants, proxy_resources
from fhir_server.portal.activation_codes import Invitation
from fhir_server.portal.context import NotYourRecordError, PortalContext
from fhir_server.portal.proxy_grants import ProxyGrant
from fhir_server.portal.proxy_resources import SharingRequest
from fhir_server.portal.wording import LEVELS, RELATIONSHIPS
from fhir_server.smart.accounts.users import User
from fhir_server.store import Transaction
from fhir_server.writing.draft import parse_draft

MAX_GRANTS: Final = 50
MAX_NAME: Final = 100
_NAME: Final = f"Enter the other person's name, with at most {MAX_NAME} characters."
_LEVEL: Final = "Select an access level."
_TAKER: Final = f"A user name has at most {MAX_NAME} characters."
_BORN: Final = "Enter the birth date as year, month and day, or leave it empty."
_FIRST_BIRTH: Final = date(1850, 1, 1)
_UNTIL: Final = "The last day must be today or a later date."
_MANY: Final = f"You can share a record with at most {MAX_GRANTS} people. End someone's access first."
ENDED: Final = "This access has already ended."
NO_NEW_CODE: Final = "This access has ended, or its code has been used. You cannot make a new code for it."
NOT_WITHDRAWN: Final = "This code has been used, or there is none. Look at the list below: it says who has access."


class SharingFormError(ValueError):
    """The form cannot be carried out. The message is for the page; ``field`` is the invalid field, or ""."""

    def __init__(self, text: str, field: str = "") -> None:
        super().__init__(text)
        self.field = field


def parse_sharing_request(form: dict[str, str], today: date) -> SharingRequest:
    """Read the sharing form. ``today`` is the first day allowed as the last day. Raises SharingFormError."""
    name = " ".join(form.get("name", "").split())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise SharingFormError(_NAME, "name")
    relationship, level = form.get("relationship", ""), form.get("level", "")
    if level not in LEVELS:
        raise SharingFormError(_LEVEL, "level")
    until = _parse_last_day(form["until"], today) if form.get("until") else None
    taker = form.get("taker", "").strip()
    if len(taker) > MAX_NAME or not taker.isprintable():
        raise SharingFormError(_TAKER, "taker")
    born = parse_birth_date(form["born"], today) if form.get("born") else None
    return SharingRequest(name, relationship if relationship in RELATIONSHIPS else "", level, until, taker, born)


def parse_birth_date(text: str, today: date) -> date:
    """Read a birth date. Raises SharingFormError."""
    try:
        born = date.fromisoformat(text.strip())
    except ValueError:
        raise SharingFormError(_BORN, "born") from None
    if not _FIRST_BIRTH <= born <= today:
        raise SharingFormError(_BORN, "born")
    return born


def _parse_last_day(text: str, today: date) -> date:
    try:
        until = date.fromisoformat(text.strip())
    except ValueError:
        raise SharingFormError(_UNTIL, "until") from None
    if not today <= until < date(9000, 1, 1):
        raise SharingFormError(_UNTIL, "until")
    return until


async def list_shared(context: PortalContext, user: User, now: int) -> list[ProxyGrant]:
    """Return the grants in force on the person's own record. Raises NotYourRecordError."""
    async with context.smart.store.snapshot() as snapshot:
        return await _grants_in_force(context, await context.own_record(snapshot, user, now), user)


async def share(context: PortalContext, user: User, request: SharingRequest, now: int) -> tuple[str, str]:
    """Give another person access; return the activation code for that person, and the id of the Consent.

    Raises NotYourRecordError, SharingFormError.
    """
    patient, service = _own_patient(user), context.service
    related_person, consent_id = service.new_id(), service.new_id()
    person = proxy_resources.build_related_person(patient, request)
    consent = proxy_resources.build_consent(
        patient, related_person, request, now=now, today=context.today(now), policy=service.policy.name, authority=context.smart.origin
    )

    async def job(tx: Transaction) -> None:
        view = await context.own_record(tx, user, now)
        if len(await _grants_in_force(context, view, user)) >= MAX_GRANTS:
            raise SharingFormError(_MANY)
        writer = context.writer(tx, now)
        await writer.write(person, related_person, takes_labels=False, previous=None)
        await writer.write(consent, consent_id, takes_labels=False, previous=None)

    await context.smart.store.write(job)
    taker, born = activation_codes.taker_of(request.taker), activation_codes.born_of(related_person, request.born)
    invitation = Invitation(patient, consent_id, related_person, taker=taker, born=born)
    code = await activation_codes.issue(context.smart.store.key_values, invitation, now)
    return code, consent_id


async def renew_code(context: PortalContext, user: User, consent: str, now: int) -> tuple[str, ProxyGrant]:
    """Make a new code for a grant whose code has not been used. Raises NotYourRecordError, SharingFormError."""
    grant = next((grant for grant in await list_shared(context, user, now) if grant.consent == consent), None)
    code = await activation_codes.renew(context.smart.store.key_values, grant.persons[0], now) if grant else None
    if grant is None or code is None:
        raise SharingFormError(NO_NEW_CODE)
    return code, grant


async def withdraw_code(context: PortalContext, user: User, consent: str, now: int) -> None:
    """Make a code invalid that has not been used; the access can have another. Raises NotYourRecordError, SharingFormError."""
    grant = next((grant for grant in await list_shared(context, user, now) if grant.consent == consent), None)
    if grant is None or not await activation_codes.withdraw(context.smart.store.key_values, grant.persons[0], now):
        raise SharingFormError(NOT_WITHDRAWN)


async def change_level(context: PortalContext, user: User, consent: str, level: str, now: int) -> None:
    """Give a grant another level: a new version of its Consent.  Tokens that exist see more or less with the next request.

    Raises NotYourRecordError, SharingFormError.
    """
    if level not in LEVELS:
        raise SharingFormError(_LEVEL)

    def change(row: bytes) -> dict[str, bytes]:
        return {"category": proxy_resources.with_level(jsontext.members(row)["category"], level)}

    await _change(context, user, consent, change, now)


async def end(context: PortalContext, user: User, consent: str, now: int) -> None:
    """End a grant: write a new version of its Consent with status ``inactive``. Raises NotYourRecordError, SharingFormError."""
    await _change(context, user, consent, lambda _: {"status": b'"inactive"'}, now)
    await activation_codes.delete_codes(context.smart.store.key_values, consent)


async def _change(context: PortalContext, user: User, consent: str, change: Callable[[bytes], dict[str, bytes]], now: int) -> None:
    """Write a new version of the Consent of a grant in force, with other members of the resource."""

    async def job(tx: Transaction) -> None:
        view = await context.own_record(tx, user, now)
        active = {grant.consent for grant in await _grants_in_force(context, view, user)}
        row = await tx.read_unfiltered("Consent", consent) if consent in active else None
        if row is None:
            raise SharingFormError(ENDED)
        changed = parse_draft(jsontext.join_members(jsontext.members(row.body) | change(row.body)), "Consent")
        # Everything else is the stored text, so the security labels stay, no matter who set them.
        await context.writer(tx, now).write(changed, consent, takes_labels=True, previous=row)

    await context.smart.store.write(job)


async def _grants_in_force(context: PortalContext, view: View, user: User) -> list[ProxyGrant]:
    return await proxy_grants.list_in_force(view, _own_patient(user), context.service.policy.timezone)


def _own_patient(user: User) -> str:
    if user.patient is None:
        raise NotYourRecordError
    return user.patient
