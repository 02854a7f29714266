"""Codes with which a patient opens an account: the office gives one out after it has checked who the person is, or has it mailed.

A code has 100 random bits, works once, and only with the patient's birth date, of which five may be tried: who finds the letter with the
code must not open somebody's record.  Another code for the same patient replaces it.  A patient has one account.
"""

from __future__ import annotations

import hmac
from datetime import date
from typing import Final

import msgspec

from fhir_server.smart.accounts import administration, attempts, typed_codes, users
from fhir_server.smart.accounts.administration import TakenReferenceError
from fhir_server.smart.accounts.attempts import AttemptLimit
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import DAY, SmartContext, digest
from fhir_server.store import Store

LIFE: Final = 90 * DAY
MAILED_LIFE: Final = 30 * DAY
DATES: Final = 5  # birth dates that may be tried; then the code is dead
_KIND: Final = "account-code"
_LENGTH: Final = 20  # characters: 100 random bits


class Opening(msgspec.Struct, frozen=True):
    """Whose account a code opens.

    ``patient``  id of the Patient
    ``name``     the person's name as pages show it
    ``born``     digest of patient and birth date
    ``address``  the e-mail address to which the code was sent; "" for one of the office
    ``until``    when the code expires, in microseconds
    """

    patient: str
    name: str
    born: str
    address: str = ""
    until: int = 0


class AccountCodeError(ValueError):
    """The code is wrong, used, expired or dead, or the birth date is wrong."""


def born_of(patient: str, born: date | None) -> str:
    """Return the digest of a patient's birth date."""
    return digest(f"born {patient} {born.isoformat() if born else ''}")


async def issue(store: Store, opening: Opening, now: int) -> str:
    """Return a new code for the patient, as groups of four characters.  Earlier ones of the patient stop working."""
    code = typed_codes.generate(_LENGTH)
    await store.key_values.delete_family(_family(opening.patient))
    dated = msgspec.structs.replace(opening, until=now + (MAILED_LIFE if opening.address else LIFE))
    await _put(store, digest(code), dated)
    return typed_codes.format_groups(code)


async def redeem(smart: SmartContext, typed: str, born: date | None, username: str, password: str) -> tuple[User, Opening]:
    """Create the patient's account with the user name and the password that the person has chosen, and consume the code.

    Raises AccountCodeError; ValueError, with a message for the person, for a user name or password that cannot be taken, or if the patient
    has an account by now; TimeoutError if somebody else opens an account for the patient.  The code then stays valid.
    """
    values, now, key = smart.store.key_values, smart.now(), digest(typed_codes.normalize(typed))
    text = await values.get(_KIND, key, now)
    if text is None:
        raise AccountCodeError
    opening = msgspec.json.decode(text, type=Opening)
    slot = await AttemptLimit(f"account code {key}", DATES, window=LIFE).take(values, now)
    if slot is None or not hmac.compare_digest(born_of(opening.patient, born), opening.born):
        raise AccountCodeError
    await attempts.release(values, slot, now)
    async with users.locked(smart.store, f"account of {opening.patient}"):
        await _require_without_account(smart.store, opening)
        if await values.pop(_KIND, key, now) is None:
            raise AccountCodeError
        try:
            user = await users.create(
                smart.store, username, password, "patient", name=opening.name, patient=opening.patient, rules=smart.passwords
            )
        except BaseException:
            await _put(smart.store, key, opening)
            raise
    return user, opening


async def _put(store: Store, key: str, opening: Opening) -> None:
    await store.key_values.put(_KIND, key, msgspec.json.encode(opening), opening.until, _family(opening.patient))


async def _require_without_account(store: Store, opening: Opening) -> None:
    try:
        await administration.require_unused(store, f"Patient/{opening.patient}")
    except TakenReferenceError:
        raise ValueError("You have an account already. Sign in with it, or ask our health information office.") from None


def _family(patient: str) -> str:
    return f"account codes of Patient/{patient}"
