"""A sign-in that waits for the second factor.  Its cookie opens only the page that asks for the code."""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.second_factor import PURPOSE
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core import session_ends
from fhir_server.smart.core.context import MINUTE, SmartContext, digest, new_secret
from fhir_server.smart.core.encryption import SealedRecords

LIFE: Final = 10 * MINUTE
_KIND: Final = "half-signed-in"


class PendingSecondFactor(msgspec.Struct, frozen=True):
    """A sign-in whose first factor was right.

    ``return_path``  a path on this server where the sign-in leads
    ``seed``         the encrypted seed offered to a user who must set up a second factor, else empty
    ``authenticated``  when the first factor was given, in microseconds; 0 if that is not known
    ``amr``          how the user proved the first factor (RFC 8176)
    """

    username: str
    return_path: str = msgspec.field(name="onward")
    seed: bytes = b""
    authenticated: int = 0
    amr: tuple[str, ...] = ()


SEALED: Final = SealedRecords(_KIND, PURPOSE, PendingSecondFactor, "seed")


async def start(smart: SmartContext, user: User, return_path: str, authenticated: int, seed: bytes = b"", amr: tuple[str, ...] = ()) -> str:
    """Return the session cookie of the pending sign-in.  It ends after ten minutes, or when the account changes."""
    cookie = new_secret()
    text = msgspec.json.encode(PendingSecondFactor(user.username, return_path, seed, authenticated, amr))
    await smart.store.key_values.put(_KIND, digest(cookie), text, smart.now() + LIFE, session_ends.account_family(user.username))
    return cookie


async def find(smart: SmartContext, cookie: str) -> tuple[PendingSecondFactor, User] | None:
    """Return the pending sign-in of this cookie and its account.  None if it has ended or the account is disabled."""
    text = await smart.store.key_values.get(_KIND, digest(cookie), smart.now()) if cookie else None
    pending = None if text is None else msgspec.json.decode(text, type=PendingSecondFactor)
    user = await users.find(smart.store, pending.username) if pending else None
    return None if pending is None or user is None or user.disabled else (pending, user)


async def consume(smart: SmartContext, cookie: str) -> bool:
    """End the pending sign-in.  Of several concurrent calls, one returns True."""
    return await smart.store.key_values.pop(_KIND, digest(cookie), smart.now()) is not None
