"""Friends and family access: an adult lets others into her own record, and ends that.

Each change is one transaction, in which the person is judged again; it counts from the next request on.
"""

from __future__ import annotations

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

MOST: Final = 50
LONGEST_NAME: Final = 100
_NAME: Final = f"Write the other person's name, in at most {LONGEST_NAME} letters."
_LEVEL: Final = "Choose how much the other person may see."
_UNTIL: Final = "The last day must be a date, today or later."
_MANY: Final = f"A record can be shared with at most {MOST} people. End somebody's access first."
GONE: Final = "This access has ended already."
TAKEN: Final = "This access has ended, or the code was used already, so there is no other code for it."


class UnclearFormError(ValueError):
    """A form that cannot be acted on, worded for the person; ``field`` is the one to look at."""

    def __init__(self, text: str, field: str = "") -> None:
        super().__init__(text)
        self.field = field


def parse_sharing_request(form: dict[str, str], today: date) -> SharingRequest:
    """What a sent form asks for.  Raises Unclear."""
    name = " ".join(form.get("name", "").split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise UnclearFormError(_NAME, "name")
    relationship, level = form.get("relationship", ""), form.get("level", "")
    if level not in LEVELS:
        raise UnclearFormError(_LEVEL, "level")
    until = _date(form["until"], today) if form.get("until") else None
    return SharingRequest(name, relationship if relationship in RELATIONSHIPS else "", level, until)


def _date(text: str, today: date) -> date:
    try:
        until = date.fromisoformat(text.strip())
    except ValueError:
        raise UnclearFormError(_UNTIL, "until") from None
    if not today <= until < date(9000, 1, 1):
        raise UnclearFormError(_UNTIL, "until")
    return until


async def list_shared(context: PortalContext, user: User, now: int) -> list[ProxyGrant]:
    """Who has been let in.  Raises NotYours."""
    async with context.smart.store.snapshot() as snapshot:
        return await _in_force(context, await context.own_record(snapshot, user, now), user)


async def share(context: PortalContext, user: User, asked: SharingRequest, now: int) -> tuple[str, str]:
    """Let somebody in: the code by which that person takes it up, and the id of the Consent.  Raises NotYours, Unclear."""
    patient, service = _own(user), context.service
    related, token_grant = service.new_id(), service.new_id()
    person = proxy_resources.related_person(patient, asked)
    consent = proxy_resources.consent(
        patient, related, asked, now=now, today=context.today(now), policy=service.policy.name, authority=context.smart.origin
    )

    async def job(tx: Transaction) -> None:
        view = await context.own_record(tx, user, now)
        if len(await _in_force(context, view, user)) >= MOST:
            raise UnclearFormError(_MANY)
        writing = context.writing(tx, now)
        await writing.write(person, related, trusted=False, previous=None)
        await writing.write(consent, token_grant, trusted=False, previous=None)

    await context.smart.store.write(job)
    return await activation_codes.issue(context.smart.store.key_values, Invitation(patient, token_grant, related), now), token_grant


async def another_code(context: PortalContext, user: User, consent: str, now: int) -> tuple[str, ProxyGrant]:
    """A new code for a grant nobody has taken up.  Raises NotYours, Unclear."""
    grant = next((one for one in await list_shared(context, user, now) if one.consent == consent), None)
    code = await activation_codes.renew(context.smart.store.key_values, grant.persons[0], now) if grant else None
    if grant is None or code is None:
        raise UnclearFormError(TAKEN)
    return code, grant


async def end(context: PortalContext, user: User, consent: str, now: int) -> None:
    """End a grant: its Consent becomes inactive, in a new version.  Raises NotYours, Unclear."""

    async def job(tx: Transaction) -> None:
        view = await context.own_record(tx, user, now)
        known = {grant.consent for grant in await _in_force(context, view, user)}
        row = await tx.read_unfiltered("Consent", consent) if consent in known else None
        if row is None:
            raise UnclearFormError(GONE)
        ended = parse_draft(jsontext.join_members(jsontext.members(row.body) | {"status": b'"inactive"'}), "Consent")
        # All but the status is the stored text itself, so its labels stay, whoever set them.
        await context.writing(tx, now).write(ended, consent, trusted=True, previous=row)

    await context.smart.store.write(job)
    await activation_codes.forget(context.smart.store.key_values, consent)


async def _in_force(context: PortalContext, view: View, user: User) -> list[ProxyGrant]:
    return await proxy_grants.in_force(view, _own(user), context.service.policy.timezone)


def _own(user: User) -> str:
    if user.patient is None:
        raise NotYourRecordError
    return user.patient
