"""One-time codes with which a user sets a password: for a new account, or for a forgotten password.

The operator issues the code and does not learn the password, or the server sends it to the account's verified e-mail address.  A code has
100 random bits, works once, and expires.  The operator's code does not replace the second factor.  A mailed one is of no use without it:
who reads somebody's e-mail must not get into the account (NIST SP 800-63B-4, 4.2).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from fhir_server.smart.accounts import second_factor, typed_codes, users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import DAY, SmartContext, digest
from fhir_server.store import Store

_LENGTH: Final = 20  # characters: 100 random bits


@dataclass(frozen=True, slots=True)
class CodeSource:
    """Where a code comes from: the ``kind`` of its record, how long it lives, and whether the second factor is asked for, too."""

    kind: str
    life: int
    needs_second_factor: bool


OFFICE: Final = CodeSource("password-code", 3 * DAY, False)
MAIL: Final = CodeSource("mailed-password-code", DAY, True)
LIFE: Final = OFFICE.life


class SecondFactorNeededError(ValueError):
    """The code is right, and the account has a second factor whose code is wrong or missing."""


async def issue(store: Store, user: User, now: int, source: CodeSource = OFFICE) -> str:
    """Return a new code for this account.  It replaces an earlier code of the same source."""
    code = typed_codes.generate(_LENGTH)
    hashed = digest(f"{user.subject} {code}").encode()
    await store.key_values.put(source.kind, digest(user.subject), hashed, now + source.life)
    return typed_codes.format_groups(code)


async def withdraw(store: Store, user: User, source: CodeSource) -> None:
    """Let the account's code of this source be no longer valid."""
    await store.key_values.pop(source.kind, digest(user.subject), 0)


async def redeem(
    smart: SmartContext, username: str, typed: str, password: str, source: CodeSource = OFFICE, second: str = "", device: str = ""
) -> User | None:
    """Set the account's password and consume the code.  None if the code is wrong, used or expired.

    ``second``  a code of the second factor, where the source needs one
    ``device``  the browser's device cookie

    Raises ValueError as :func:`users.hash_password` does, and SecondFactorNeededError; the code then stays valid.
    """
    user = await users.find(smart.store, username)
    if user is None or user.disabled or not await _is_valid(smart, user, typed, source):
        return None
    hashed = await users.hash_password(password, smart.passwords, (user.username, user.name))
    has_second = source.needs_second_factor and await second_factor.find_factor(smart, user) is not None
    if has_second and not await second_factor.verify_code(smart, user, second, device):
        raise SecondFactorNeededError
    if await smart.store.key_values.pop(source.kind, digest(user.subject), smart.now()) is None:
        return None
    return await users.save_password_hash(smart.store, user, hashed, smart.now())


async def _is_valid(smart: SmartContext, user: User, typed: str, source: CodeSource) -> bool:
    stored = await smart.store.key_values.get(source.kind, digest(user.subject), smart.now())
    code = typed_codes.normalize(typed)
    return stored is not None and hmac.compare_digest(stored, digest(f"{user.subject} {code}").encode())
