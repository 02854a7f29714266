"""The second factor: one-time codes from an authenticator app (TOTP, RFC 6238), and recovery codes.

Each code works once.  Seeds are encrypted if the settings hold a key.  Recovery codes have 120 random bits, so their plain
SHA-256 is stored (OWASP ASVS 5.0, 6.5).  Attempts are limited as those at passwords are
(:mod:`~fhir_server.smart.accounts.attempts`).
"""

from __future__ import annotations

import secrets
from base64 import b32encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import segno
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor import InvalidToken
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.accounts import known_devices, typed_codes
from fhir_server.smart.accounts.attempts import AttemptLimit
from fhir_server.smart.accounts.users import User, second_factor_family
from fhir_server.smart.core.context import SECOND, SmartContext, digest
from fhir_server.smart.core.encryption import InvalidToken as DecryptionError
from fhir_server.smart.core.encryption import SealedRecords, seal, unseal
from fhir_server.store import Store

TIME_STEP: Final = 30 * SECOND
GRACE: Final = 10 * SECOND  # in which an expired code is still accepted, for the time of typing and sending it (RFC 6238 5.2)
RECOVERY_CODES: Final = 8
_FACTOR: Final = "second-factor"
_RECOVERY: Final = "recovery-code"
PURPOSE: Final = "fhir-server second factors"
_LENGTH: Final = 24  # characters of a recovery code: 120 random bits


class SecondFactor(msgspec.Struct, frozen=True):
    """An enrolled authenticator app: its seed (encrypted if there is a key), and when it was enrolled (microseconds)."""

    seed: bytes
    since: int


SEALED: Final = SealedRecords(_FACTOR, PURPOSE, SecondFactor, "seed")


@dataclass(frozen=True, slots=True)
class Setup:
    """A seed as the setup page shows it: an SVG picture to scan, and letters to type."""

    picture: str
    letters: str


def new_seed() -> bytes:
    """Return 160 random bits, as RFC 4226 recommends."""
    return secrets.token_bytes(20)


def build_setup(smart: SmartContext, user: User, seed: bytes) -> Setup:
    """Return the seed in the two forms in which an authenticator app accepts it."""
    uri = _totp(seed).get_provisioning_uri(user.username, smart.organization.replace(":", " "))
    letters = b32encode(seed).decode()
    picture = segno.make(uri, error="m", micro=False).svg_inline(omitsize=True, border=3, svgclass="picture", lineclass=None)
    return Setup(picture, " ".join(letters[start : start + 4] for start in range(0, len(letters), 4)))


def is_required(smart: SmartContext, user: User) -> bool:
    """Whether users of this account's role must have a second factor."""
    return user.role in smart.second_factor


async def find_factor(smart: SmartContext, user: User) -> SecondFactor | None:
    """Return the account's second factor, or None if it has none."""
    text = await smart.store.key_values.get(_FACTOR, digest(user.subject), 0)
    return None if text is None else msgspec.json.decode(text, type=SecondFactor)


async def enroll(smart: SmartContext, user: User, seed: bytes) -> tuple[str, ...]:
    """Make this seed the account's second factor.  Returns new recovery codes; earlier ones no longer work."""
    family, values = second_factor_family(user), smart.store.key_values
    factor = SecondFactor(encrypt_seed(smart, seed), smart.now())
    # Overwrites the old seed: if it were removed first, the password alone would be enough for a moment.
    await values.put(_FACTOR, digest(user.subject), msgspec.json.encode(factor), MAX_INSTANT, family)
    for key in await _recovery_keys(smart, user):
        await values.pop(_RECOVERY, key, smart.now())
    codes = [typed_codes.generate(_LENGTH) for _ in range(RECOVERY_CODES)]
    for code in codes:
        await values.put(_RECOVERY, _recovery_key(user, code), user.subject.encode(), MAX_INSTANT, family)
    return tuple(typed_codes.format_groups(code) for code in codes)


async def remove(store: Store, user: User) -> None:
    """Remove the account's second factor and its recovery codes."""
    await store.key_values.delete_family(second_factor_family(user))


async def count_recovery_codes(smart: SmartContext, user: User) -> int:
    """Return the number of unused recovery codes."""
    return len(await _recovery_keys(smart, user))


async def verify_code(smart: SmartContext, user: User, typed: str, device: str = "") -> bool:
    """Whether this is an unused code of the account's app, or an unused recovery code.  Consumes it; counts the attempt.

    ``device`` is the browser's device cookie: one in which the user has signed in before has its own attempts.
    """
    factor = await find_factor(smart, user)
    if factor is None:
        return False
    seed, code = decrypt_seed(smart, factor.seed), typed_codes.normalize(typed)

    async def check() -> bool:
        return await _consume_totp(smart, user, code, seed) or await _consume_recovery_code(smart, user, code)

    return await _check_limited(smart, user, check, device)


async def verify_first_code(smart: SmartContext, user: User, typed: str, seed: bytes) -> bool:
    """Whether this is an unused code of an app that has just received ``seed``.  Consumes it; counts the attempt."""

    async def check() -> bool:
        return await _consume_totp(smart, user, typed_codes.normalize(typed), seed)

    return await _check_limited(smart, user, check)


def encrypt_seed(smart: SmartContext, seed: bytes) -> bytes:
    """Return the seed as it is stored: encrypted if the settings hold a key."""
    return seal(smart, PURPOSE, seed)


def decrypt_seed(smart: SmartContext, stored: bytes) -> bytes:
    """Return the seed.  If it was encrypted with another key, returns a random seed that no code matches."""
    try:
        return unseal(smart, PURPOSE, stored)
    except DecryptionError:
        return new_seed()


async def _check_limited(smart: SmartContext, user: User, check: Callable[[], Awaitable[bool]], device: str = "") -> bool:
    """Run a check if the limit of the account, or of its known device, is not reached; reset the limit if the check succeeds."""
    now, values = smart.now(), smart.store.key_values
    own = f" on {digest(device)}" if await known_devices.is_known(smart.store, device, user.username, now) else ""
    limit = AttemptLimit(f"second:{user.subject}{own}", username=user.username)
    if await limit.take(values, now) is None or not await check():
        return False
    await limit.reset(values, now)
    return True


async def _consume_totp(smart: SmartContext, user: User, code: str, seed: bytes) -> bool:
    now = smart.now()
    if not (code.isascii() and code.isdigit()):
        return False
    for step in dict.fromkeys((now // TIME_STEP, (now - GRACE) // TIME_STEP)):
        try:
            _totp(seed).verify(code.encode(), step * TIME_STEP // SECOND)
        except InvalidToken:
            continue
        used = digest(f"{user.subject} {step}")
        return await smart.store.key_values.put_if_absent("one-time-code", used, b"", now + 2 * TIME_STEP)
    return False


async def _consume_recovery_code(smart: SmartContext, user: User, code: str) -> bool:
    return await smart.store.key_values.pop(_RECOVERY, _recovery_key(user, code), smart.now()) is not None


async def _recovery_keys(smart: SmartContext, user: User) -> list[str]:
    return [key for key, _ in await smart.store.key_values.list_family(_RECOVERY, second_factor_family(user), smart.now())]


def _totp(seed: bytes) -> TOTP:
    return TOTP(seed, 6, SHA1(), TIME_STEP // SECOND)  # the parameters that every authenticator app supports


def _recovery_key(user: User, code: str) -> str:
    return digest(f"{user.subject} {code}")
