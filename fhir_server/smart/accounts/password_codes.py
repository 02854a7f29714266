"""One-time codes with which a user sets a password: for a new account, or for a forgotten password.

The operator issues the code and does not learn the password.  A code has 100 random bits, works once, and expires after
three days.  It does not replace the second factor.
"""

from __future__ import annotations

import hmac
from typing import Final

from fhir_server.smart.accounts import typed_codes, users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import DAY, SmartContext, digest
from fhir_server.store import Store

LIFE: Final = 3 * DAY
_KIND: Final = "password-code"
_LENGTH: Final = 20  # characters: 100 random bits


async def issue(store: Store, user: User, now: int) -> str:
    """Return a new code for this account.  It replaces an earlier code."""
    code = typed_codes.generate(_LENGTH)
    hashed = digest(f"{user.subject} {code}").encode()
    await store.key_values.put(_KIND, digest(user.subject), hashed, now + LIFE)
    return typed_codes.format_groups(code)


async def redeem(smart: SmartContext, username: str, typed: str, password: str) -> User | None:
    """Set the account's password and consume the code.  None if the code is wrong, used or expired.

    Raises ValueError as :func:`users.hash_password` does; the code then stays valid.
    """
    user = await users.find(smart.store, username)
    if user is None or user.disabled or not await _is_valid(smart, user, typed):
        return None
    hashed = await users.hash_password(password, smart.passwords, (user.username, user.name))
    if await smart.store.key_values.pop(_KIND, digest(user.subject), smart.now()) is None:
        return None
    return await users.save_password_hash(smart.store, user, hashed, smart.now())


async def _is_valid(smart: SmartContext, user: User, typed: str) -> bool:
    stored = await smart.store.key_values.get(_KIND, digest(user.subject), smart.now())
    code = typed_codes.normalize(typed)
    return stored is not None and hmac.compare_digest(stored, digest(f"{user.subject} {code}").encode())
