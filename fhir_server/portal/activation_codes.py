"""Activation codes: connect a proxy grant's RelatedPerson to the account of the person who enters the code.

Until an account redeems the code, the grant gives access to no one. A code works once, within 90 days, and only its digest
is stored. Attempts are counted for each account before the code is checked, so parallel requests and new sessions give no
extra attempts. All failures of a code have the same message.

The person who gives access learns whose account used the code, and when. A code can be for one user name alone, and for a person with
one birth date: then any other account, and any other date, gets the answer for a wrong code, and the code stays valid. Birth dates can be
guessed, so few wrong ones are free for a code; further attempts take turns, in which the right date passes.
"""

from __future__ import annotations

import hmac
from datetime import date
from typing import Final, Literal

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.accounts import account_events, attempts, typed_codes, user_index, users
from fhir_server.smart.accounts.attempts import AttemptLimit
from fhir_server.smart.accounts.sign_in_rate import in_words
from fhir_server.smart.accounts.turns import Line
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import DAY, MINUTE, digest
from fhir_server.store import KeyValueStore, Store

CODE_LIFE: Final = 90 * DAY
WRONG: Final = (
    "This code is wrong, has been used or has expired, or there were too many attempts. Check the code, wait 15 minutes "
    "and try again, or ask for a new code. It may be for another user name, or need your birth date."
)
WAIT: Final = "There were many wrong attempts with this code. Enter it again in {wait}, with the birth date, within ten minutes from then."
OWN: Final = "This code is for your own record. Give it to the person you share your record with."
STAFF: Final = "You cannot use a code with a work account. Sign in with your personal account."
BUSY: Final = "Your account is being changed in another browser tab. Wait a minute and try again."

CodeState = Literal["none", "waiting", "withdrawn", "expired", "accepted"]
_INVITATION: Final = "invitation"
_ACTIVATION: Final = "activation"
_LENGTH: Final = 20  # 100 random bits
_FREE_DATES: Final = 10  # wrong birth dates for a code in a day, from all accounts
_DATE_INTERVAL: Final = 3 * MINUTE


class CodeRefusedError(Exception):
    """The code was not redeemed. The message is for the page."""


class Invitation(msgspec.Struct, frozen=True):
    """The activation of a grant that was made on the sharing page; stored by RelatedPerson id until the grant ends.

    ``patient``, ``consent``, ``related_person``  ids
    ``key``       digest of the newest code
    ``until``     when that code expires (microseconds since 1970 UTC)
    ``accepted``  whether an account has redeemed a code
    ``taker``     digest of the only user name that may redeem a code; "" for any
    ``born``      digest of the birth date that must be entered with the code; "" for none
    ``taken_by``, ``taken_at``  the name of the account that redeemed it, and when; "" and 0 if it did before this was stored
    """

    patient: str
    consent: str
    related_person: str
    key: str = ""
    until: int = 0
    accepted: bool = False
    taker: str = ""
    taken_by: str = ""
    taken_at: int = 0
    born: str = ""


def born_of(related_person: str, born: date | None) -> str:
    """Return the ``born`` of an invitation for this birth date; "" for none."""
    return digest(f"born {related_person} {born.isoformat()}") if born else ""


def taker_of(username: str) -> str:
    """Return the ``taker`` of an invitation for this user name; "" for none."""
    return digest(f"taker {users.canonical(username)}") if username else ""


async def issue(values: KeyValueStore, invitation: Invitation, now: int) -> str:
    """Store a new code for the grant and return it, as five groups of four characters. The previous code stops working."""
    code = typed_codes.generate(_LENGTH)
    renewed = msgspec.structs.replace(invitation, key=digest(code), until=now + CODE_LIFE)
    await _put(values, renewed)
    await _activate(values, renewed)
    return typed_codes.format_groups(code)


async def renew(values: KeyValueStore, related_person: str, now: int) -> str | None:
    """Issue another code; None if an account has redeemed the grant's code or is redeeming it now."""
    invitation = await _find(values, related_person)
    if invitation is None or invitation.accepted:
        return None
    withdrawn = await values.pop(_ACTIVATION, invitation.key, now) is not None
    return await issue(values, invitation, now) if withdrawn or invitation.until <= now else None


async def withdraw(values: KeyValueStore, related_person: str, now: int) -> bool:
    """Make the grant's code invalid; the grant stays. False if there is no code, or an account has redeemed it or is redeeming it now."""
    invitation = await _find(values, related_person)
    if invitation is None or invitation.accepted or await values.pop(_ACTIVATION, invitation.key, now) is None:
        return False
    await _put(values, msgspec.structs.replace(invitation, key="", until=0))
    return True


async def find_invitation(values: KeyValueStore, related_person: str) -> Invitation | None:
    """Return the activation of a grant; None if the grant was not made on the sharing page."""
    return await _find(values, related_person)


def code_state(invitation: Invitation | None, now: int) -> CodeState:
    """Return the state of the grant's newest code; "none" if the grant was not made on the sharing page."""
    if invitation is None:
        return "none"
    if invitation.accepted:
        return "accepted"
    return "waiting" if now < invitation.until else "expired" if invitation.key else "withdrawn"


async def delete_codes(values: KeyValueStore, consent: str) -> None:
    """Delete the codes of a grant that has ended."""
    await values.delete_family(_family(consent))


async def redeem(store: Store, user: User, typed: str, now: int, born: date | None = None) -> tuple[User, Invitation]:
    """Link the grant's RelatedPerson to the account, whose sessions stay open.  ``born`` is the birth date that the person entered.

    Returns the changed user and the invitation. Raises CodeRefusedError.
    """
    if user.role != "patient":
        raise CodeRefusedError(STAFF)
    values, key = store.key_values, digest(typed_codes.normalize(typed))
    attempt = await AttemptLimit(f"activation:{user.username}", username=user.username).take(values, now)
    invitation = await _find_pending(values, key, now)
    if attempt is None or invitation is None or invitation.taker not in ("", taker_of(user.username)):
        raise CodeRefusedError(WRONG)
    if invitation.patient == user.patient:
        raise CodeRefusedError(OWN)
    guess = await _guess(values, invitation, user, born, now) if invitation.born else ""
    if await values.pop(_ACTIVATION, key, now) is None:
        raise CodeRefusedError(WRONG)
    try:
        changed = await users.link(store, user.username, invitation.related_person)
    except (LookupError, TimeoutError) as error:
        await _activate(values, invitation)
        raise CodeRefusedError(WRONG if isinstance(error, LookupError) else BUSY) from None
    await _put(values, msgspec.structs.replace(invitation, accepted=True, taken_by=changed.name, taken_at=now))
    for slot in (attempt, guess):
        await attempts.release(values, slot, now)
    giver = await user_index.find(store, f"Patient/{invitation.patient}")
    if giver is not None:
        await account_events.record(store, giver, "code-used", now, by=changed.name)
    return changed, invitation


async def _guess(values: KeyValueStore, invitation: Invitation, user: User, born: date | None, now: int) -> str:
    """Compare the birth date, if that is free or the account's turn.  Returns the slot to release.  Raises CodeRefusedError."""
    name = f"birth date of {invitation.related_person}"
    slot = await AttemptLimit(name, _FREE_DATES, window=DAY).take(values, now)
    if slot is None:
        wait = await Line(name, _DATE_INTERVAL, 1).take(values, user.subject, user.subject, now)
        if wait:
            raise CodeRefusedError(WAIT.format(wait=in_words(wait)))
    if not hmac.compare_digest(born_of(invitation.related_person, born), invitation.born):
        raise CodeRefusedError(WRONG)
    return slot or ""


async def find_accepted(store: Store, user: User, typed: str) -> tuple[User, Invitation] | None:
    """Return the invitation that this account has redeemed, or is redeeming now, with this code: the form was sent twice.

    None if the account has not redeemed it.
    """
    key = digest(typed_codes.normalize(typed))
    try:
        saved = await users.wait_until_saved(store, user.username)
    except TimeoutError:
        return None
    invitations = [await _find(store.key_values, id) for id in saved.related_persons] if saved else []
    accepted = next((invitation for invitation in invitations if invitation and invitation.key == key), None)
    return (saved, accepted) if saved and accepted else None


async def _activate(values: KeyValueStore, invitation: Invitation) -> None:
    """Make the invitation's newest code valid."""
    related_person = invitation.related_person.encode()
    await values.put(_ACTIVATION, invitation.key, related_person, invitation.until, _family(invitation.consent))


async def _find_pending(values: KeyValueStore, key: str, now: int) -> Invitation | None:
    related_person = await values.get(_ACTIVATION, key, now)
    invitation = None if related_person is None else await _find(values, related_person.decode())
    return invitation if invitation and invitation.key == key and not invitation.accepted else None


async def _find(values: KeyValueStore, related_person: str) -> Invitation | None:
    text = await values.get(_INVITATION, related_person, 0)
    return None if text is None else msgspec.json.decode(text, type=Invitation)


async def _put(values: KeyValueStore, invitation: Invitation) -> None:
    text = msgspec.json.encode(invitation)
    await values.put(_INVITATION, invitation.related_person, text, MAX_INSTANT, _family(invitation.consent))


def _family(consent: str) -> str:
    return f"grant:{consent}"
