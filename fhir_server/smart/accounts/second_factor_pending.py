"""Half a sign-in: the first factor was right, the second is still to come.  It opens nothing but the page that asks for it."""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import MINUTE, SmartContext, digest, new_secret

LIFE: Final = 10 * MINUTE
_KIND: Final = "half-signed-in"


class PendingSecondFactor(msgspec.Struct, frozen=True):
    """Who it is, where the sign-in leads (``onward``, a path here), and the sealed seed offered to who has no app yet."""

    username: str
    return_path: str = msgspec.field(name="onward")
    seed: bytes = b""


async def start(smart: SmartContext, user: User, onward: str, seed: bytes = b"") -> str:
    """The new cookie of a browser whose user has given the first factor.  It ends when the account changes."""
    cookie = new_secret()
    text = msgspec.json.encode(PendingSecondFactor(user.username, onward, seed))
    await smart.store.key_values.put(_KIND, digest(cookie), text, smart.now() + LIFE, users.session_family(user.username))
    return cookie


async def find(smart: SmartContext, cookie: str) -> tuple[PendingSecondFactor, User] | None:
    text = await smart.store.key_values.get(_KIND, digest(cookie), smart.now()) if cookie else None
    found = None if text is None else msgspec.json.decode(text, type=PendingSecondFactor)
    user = await users.find(smart.store, found.username) if found else None
    return None if found is None or user is None or user.disabled else (found, user)


async def consume(smart: SmartContext, cookie: str) -> bool:
    """End it; True for the one caller that does."""
    return await smart.store.key_values.pop(_KIND, digest(cookie), smart.now()) is not None
