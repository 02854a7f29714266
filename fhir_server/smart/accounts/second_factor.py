"""The second factor: one-time codes from an authenticator app (TOTP, RFC 6238), and recovery codes for when that is lost.

A code counts once.  Seeds are sealed where the settings hold a key; recovery codes have 120 random bits, so their plain
SHA-256 keeps them (OWASP ASVS 5.0, 6.5).  Guesses take places as guesses at passwords do (``sign_in``).
"""

from __future__ import annotations

import secrets
from base64 import b32encode
from dataclasses import dataclass
from typing import Final

import msgspec
import segno
from cryptography.fernet import InvalidToken as Unsealable
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor import InvalidToken
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.accounts.users import User, second_factor_family
from fhir_server.smart.core.context import MINUTE, SECOND, SmartContext, digest
from fhir_server.smart.core.encryption import box
from fhir_server.store import Store

TIME_STEP: Final = 30 * SECOND
GRACE: Final = 10 * SECOND  # for typing and sending the last digits of a code that has just run out (RFC 6238 5.2)
GUESSES: Final = 5
WINDOW: Final = 15 * MINUTE
RECOVERY_CODES: Final = 8
_FACTOR: Final = "second-factor"
_RECOVERY: Final = "recovery-code"
_PURPOSE: Final = "fhir-server second factors"
_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U
_ALIKE: Final = str.maketrans("OIL", "011", " -–\t")
_LENGTH: Final = 24


class SecondFactor(msgspec.Struct, frozen=True):
    """An authenticator app: the seed it shares with us (sealed where there is a key), and since when (microseconds)."""

    seed: bytes
    since: int


@dataclass(frozen=True, slots=True)
class Setup:
    """What an authenticator app is told of a seed: as an SVG picture to scan, as letters to type."""

    picture: str
    letters: str


def new_seed() -> bytes:
    """160 random bits, as RFC 4226 recommends."""
    return secrets.token_bytes(20)


def build_setup(smart: SmartContext, user: User, seed: bytes) -> Setup:
    """How to bring this seed into an app."""
    uri = _codes(seed).get_provisioning_uri(user.username, smart.organization.replace(":", " "))
    letters = b32encode(seed).decode()
    picture = segno.make(uri, error="m", micro=False).svg_inline(omitsize=True, border=3, svgclass="picture", lineclass=None)
    return Setup(picture, " ".join(letters[start : start + 4] for start in range(0, len(letters), 4)))


def is_required(smart: SmartContext, user: User) -> bool:
    """Whether nobody of this account's role gets in without a second factor."""
    return user.role in smart.second_factor


async def find_factor(smart: SmartContext, user: User) -> SecondFactor | None:
    text = await smart.store.key_values.get(_FACTOR, digest(user.subject), 0)
    return None if text is None else msgspec.json.decode(text, type=SecondFactor)


async def enroll(smart: SmartContext, user: User, seed: bytes) -> tuple[str, ...]:
    """Take this seed for the account's from now on; the recovery codes, in place of earlier ones."""
    family, kept = second_factor_family(user), smart.store.key_values
    factor = SecondFactor(encrypt_seed(smart, seed), smart.now())
    # The new seed over the old one: were that taken away first, a password alone would do for a moment.
    await kept.put(_FACTOR, digest(user.subject), msgspec.json.encode(factor), MAX_INSTANT, family)
    for code in await _left(smart, user):
        await kept.pop(_RECOVERY, code, smart.now())
    made = tuple("".join(secrets.choice(_LETTERS) for _ in range(_LENGTH)) for _ in range(RECOVERY_CODES))
    for code in made:
        await kept.put(_RECOVERY, _recovery(user, code), user.subject.encode(), MAX_INSTANT, family)
    return tuple("-".join(code[start : start + 4] for start in range(0, _LENGTH, 4)) for code in made)


async def remove(store: Store, user: User) -> None:
    """Take the second factor away, recovery codes and all."""
    await store.key_values.delete_family(second_factor_family(user))


async def count_recovery_codes(smart: SmartContext, user: User) -> int:
    """How many recovery codes have not been used."""
    return len(await _left(smart, user))


async def _left(smart: SmartContext, user: User) -> list[str]:
    return [key for key, owner in await smart.store.key_values.list_all(_RECOVERY, smart.now()) if owner == user.subject.encode()]


async def verify_code(smart: SmartContext, user: User, typed: str) -> bool:
    """Whether this is a code of the account's app, or a recovery code, and not used before; it is used now."""
    factor = await find_factor(smart, user)
    if factor is None:
        return False
    return await _verify_counted(smart, user, typed, decrypt_seed(smart, factor.seed), recovery=True)


async def verify_first_code(smart: SmartContext, user: User, typed: str, seed: bytes) -> bool:
    """Whether this is a code of an app that has just been given ``seed``; it is used now."""
    return await _verify_counted(smart, user, typed, seed, recovery=False)


def encrypt_seed(smart: SmartContext, seed: bytes) -> bytes:
    return box(smart.key.encode(), _PURPOSE).encrypt(seed) if smart.key else seed


def decrypt_seed(smart: SmartContext, kept: bytes) -> bytes:
    """A seed; one that no code fits if it was sealed under another key."""
    try:
        return box(smart.key.encode(), _PURPOSE).decrypt(kept) if smart.key else kept
    except Unsealable:
        return new_seed()


async def _verify_counted(smart: SmartContext, user: User, typed: str, seed: bytes, *, recovery: bool) -> bool:
    now, kept = smart.now(), smart.store.key_values
    places = [f"{digest(f'second:{user.subject}')}:{number}" for number in range(GUESSES)]
    for place in places:
        if await kept.put_if_absent("attempt", place, b"", now + WINDOW):
            break
    else:
        return False
    text = typed[:100].upper().translate(_ALIKE)
    fits = await _one_time(smart, user, text, seed) or (recovery and await kept.pop(_RECOVERY, _recovery(user, text), now) is not None)
    if fits:
        for place in places:
            await kept.pop("attempt", place, now)
    return fits


async def _one_time(smart: SmartContext, user: User, text: str, seed: bytes) -> bool:
    now = smart.now()
    if not (text.isascii() and text.isdigit()):
        return False
    for step in dict.fromkeys((now // TIME_STEP, (now - GRACE) // TIME_STEP)):
        try:
            _codes(seed).verify(text.encode(), step * TIME_STEP // SECOND)
        except InvalidToken:
            continue
        once = digest(f"{user.subject} {step}")
        return await smart.store.key_values.put_if_absent("one-time-code", once, b"", now + 2 * TIME_STEP)
    return False


def _codes(seed: bytes) -> TOTP:
    return TOTP(seed, 6, SHA1(), TIME_STEP // SECOND)  # what every authenticator app can do


def _recovery(user: User, code: str) -> str:
    return digest(f"{user.subject} {code}")
