"""Codes with which people choose a password: at first, and after forgetting one.  The operator makes them, and learns no password.

A code has 100 random bits, counts once and for three days, and sets a password only: a second factor is still asked for.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final

from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import DAY, SmartContext, digest
from fhir_server.store import Store

LIFE: Final = 3 * DAY
_KIND: Final = "password-code"
_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U
_ALIKE: Final = str.maketrans("OIL", "011", " -–\t")
_LENGTH: Final = 20


async def issue(store: Store, user: User, now: int) -> str:
    """A code for this account; an earlier one no longer works."""
    code = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    kept = digest(f"{user.subject} {code}").encode()
    await store.key_values.put(_KIND, digest(user.subject), kept, now + LIFE)
    return "-".join(code[start : start + 4] for start in range(0, _LENGTH, 4))


async def redeem(smart: SmartContext, username: str, typed: str, password: str) -> User | None:
    """Give the account this password, using the code up; None if the code is not this account's, or has run out.

    The code is kept where the password will not do: ValueError, as ``users.hash_password``.
    """
    user = await users.find(smart.store, username)
    if user is None or user.disabled or not await _is_valid(smart, user, typed):
        return None
    hashed = await users.hash_password(password, smart.passwords, (user.username, user.name))
    if await smart.store.key_values.pop(_KIND, digest(user.subject), smart.now()) is None:
        return None
    return await users.save_password_hash(smart.store, user, hashed, smart.now())


async def _is_valid(smart: SmartContext, user: User, typed: str) -> bool:
    kept = await smart.store.key_values.get(_KIND, digest(user.subject), smart.now())
    text = typed[:100].upper().translate(_ALIKE)
    return kept is not None and hmac.compare_digest(kept, digest(f"{user.subject} {text}").encode())
