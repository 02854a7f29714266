"""Activation codes: by whom a grant is taken up.

A grant names a RelatedPerson, who is nobody until an account redeems the grant's code.  A code works once, for 90 days; only
its digest is kept.  Guesses are counted before they are checked, for each account, so that parallel guessing and new sessions
gain nothing; and whatever is wrong with a code is told in one text.
"""

from __future__ import annotations

import secrets as random
from typing import Final, Literal

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import DAY, MINUTE, digest
from fhir_server.store import KeyValueStore, Store

CODE_LIFE: Final = 90 * DAY
GUESSES: Final = 5
WINDOW: Final = 15 * MINUTE
WRONG: Final = (
    "This code is not right, was used before or has run out, or there were too many attempts. Check it letter by letter, "
    "wait some minutes and try again, or ask for a new one."
)
OWN: Final = "This code opens your own record. Give it to the person you share your record with."
STAFF: Final = "A code cannot be used with a staff account. Sign in with an account of your own."
BUSY: Final = "Your account is being changed in another window. Wait a minute and try again."

State = Literal["none", "waiting", "lapsed", "accepted"]
_INVITATION: Final = "invitation"
_ACTIVATION: Final = "activation"
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U
_ALIKE: Final = str.maketrans("OIL", "011", " -–\t")
_LENGTH: Final = 20  # 100 random bits


class CodeRefusedError(Exception):
    """A code that is not redeemed, worded for the person."""


class Invitation(msgspec.Struct, frozen=True):
    """How a grant that was made here is to be taken up; kept by RelatedPerson id for as long as the grant stands.

    ``key`` is the digest of the newest code, ``until`` when that runs out.
    """

    patient: str
    consent: str
    related_person: str
    key: str = ""
    until: int = 0
    accepted: bool = False


async def issue(secrets: KeyValueStore, invitation: Invitation, now: int) -> str:
    """A new code for a grant; an earlier one no longer works."""
    code = "".join(random.choice(_ALPHABET) for _ in range(_LENGTH))
    fresh = msgspec.structs.replace(invitation, key=digest(code), until=now + CODE_LIFE)
    await _put(secrets, fresh)
    await _offer(secrets, fresh)
    return "-".join(code[start : start + 4] for start in range(0, _LENGTH, 4))


async def renew(secrets: KeyValueStore, related_person: str, now: int) -> str | None:
    """Another code for a grant that nobody has taken up; None if somebody has, also if that is just happening."""
    invitation = await _find(secrets, related_person)
    if invitation is None or invitation.accepted:
        return None
    withdrawn = await secrets.pop(_ACTIVATION, invitation.key, now) is not None
    return await issue(secrets, invitation, now) if withdrawn or invitation.until <= now else None


async def state(secrets: KeyValueStore, related_person: str, now: int) -> State:
    """Whether somebody has taken the grant up; "none" if it was not made here."""
    invitation = await _find(secrets, related_person)
    if invitation is None:
        return "none"
    return "accepted" if invitation.accepted else "waiting" if now < invitation.until else "lapsed"


async def forget(secrets: KeyValueStore, consent: str) -> None:
    """Void the codes of a grant that has ended."""
    await secrets.delete_family(_family(consent))


async def redeem(store: Store, user: User, typed: str, now: int) -> tuple[User, Invitation]:
    """Take up a grant: the account, from now on also its RelatedPerson.  Ends the account's sessions.  Raises Refused."""
    if user.role != "patient":
        raise CodeRefusedError(STAFF)
    secrets, key = store.key_values, digest(_read(typed))
    guess = await _guess(secrets, user.username, now)
    invitation = await _waiting(secrets, key, now)
    if guess is None or invitation is None:
        raise CodeRefusedError(WRONG)
    if invitation.patient == user.patient:
        raise CodeRefusedError(OWN)
    if await secrets.pop(_ACTIVATION, key, now) is None:
        raise CodeRefusedError(WRONG)
    try:
        changed = await users.link(store, user.username, invitation.related_person)
    except (LookupError, TimeoutError) as error:
        await _offer(secrets, invitation)
        raise CodeRefusedError(WRONG if isinstance(error, LookupError) else BUSY) from None
    await _put(secrets, msgspec.structs.replace(invitation, accepted=True))
    await secrets.pop("attempt", guess, now)
    return changed, invitation


async def accept_invitation(store: Store, user: User, typed: str) -> tuple[User, Invitation] | None:
    """The grant that this very account has taken up, or is just taking up, with this code: its form was sent twice.  None if it has not."""
    try:
        settled = await users.wait_until_saved(store, user.username)
    except TimeoutError:
        return None
    found = [await _find(store.key_values, one) for one in settled.related_persons] if settled else []
    mine = next((one for one in found if one and one.key == digest(_read(typed))), None)
    return (settled, mine) if settled and mine else None


async def _offer(secrets: KeyValueStore, invitation: Invitation) -> None:
    """The invitation's newest code works (again)."""
    related_person = invitation.related_person.encode()
    await secrets.put(_ACTIVATION, invitation.key, related_person, invitation.until, _family(invitation.consent))


def _read(typed: str) -> str:
    return typed[:100].upper().translate(_ALIKE)


async def _guess(secrets: KeyValueStore, username: str, now: int) -> str | None:
    for number in range(GUESSES):
        slot = f"{digest(f'activation:{username}')}:{number}"
        if await secrets.put_if_absent("attempt", slot, b"", now + WINDOW):
            return slot
    return None


async def _waiting(secrets: KeyValueStore, key: str, now: int) -> Invitation | None:
    related_person = await secrets.get(_ACTIVATION, key, now)
    invitation = None if related_person is None else await _find(secrets, related_person.decode())
    return invitation if invitation and invitation.key == key and not invitation.accepted else None


async def _find(secrets: KeyValueStore, related_person: str) -> Invitation | None:
    text = await secrets.get(_INVITATION, related_person, 0)
    return None if text is None else msgspec.json.decode(text, type=Invitation)


async def _put(secrets: KeyValueStore, invitation: Invitation) -> None:
    text = msgspec.json.encode(invitation)
    await secrets.put(_INVITATION, invitation.related_person, text, MAX_INSTANT, _family(invitation.consent))


def _family(consent: str) -> str:
    return f"grant:{consent}"
