"""What happened to an account lately, for the person whose it is: sign-ins, and changes of what it is signed in with.

There is no mail from here, so whoever's account was changed by somebody else learns it at the next sign-in (OWASP ASVS 5.0, 6.3.7).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from fhir_server.smart.accounts.users import User, account_family
from fhir_server.smart.core.context import DAY, digest
from fhir_server.store import Store

EventKind = Literal["signed-in", "password", "password-code", "second", "second-ended", "second-forgotten"]
DESCRIPTIONS: Final[dict[EventKind, str]] = {
    "signed-in": "Signed in",
    "password": "The password was changed",
    "password-code": "A password was chosen with a code from our office",
    "second": "The second step was set up",
    "second-ended": "The second step was taken away",
    "second-forgotten": "Our office took the second step away",
}
LIFE: Final = 400 * DAY
MAX_EVENTS: Final = 12
_KIND: Final = "account-events"


class AccountEvent(msgspec.Struct, frozen=True):
    """One event; ``at`` in microseconds, ``browser`` in words, "" for none of the person's."""

    at: int
    kind: EventKind = msgspec.field(name="what")
    browser: str = ""


async def record(store: Store, user: User, what: EventKind, now: int, browser: str = "") -> None:
    """Remember an event for the account's person, in place of the oldest of many."""
    kept = (AccountEvent(now, what, browser), *await list_events(store, user, now))[:MAX_EVENTS]
    await store.key_values.put(_KIND, digest(user.subject), msgspec.json.encode(kept), now + LIFE, account_family(user))


async def list_events(store: Store, user: User, now: int) -> tuple[AccountEvent, ...]:
    """The latest first."""
    text = await store.key_values.get(_KIND, digest(user.subject), now)
    return () if text is None else msgspec.json.decode(text, type=tuple[AccountEvent, ...])


def changes_since_last_sign_in(found: tuple[AccountEvent, ...]) -> list[AccountEvent]:
    """The changes since the sign-in before the latest one."""
    signed_in = [place for place, one in enumerate(found) if one.kind == "signed-in"]
    return [one for one in found[: signed_in[1] if len(signed_in) > 1 else None] if one.kind != "signed-in"]
