"""Recent events of an account, listed for its owner: sign-ins, changes of the password or the second factor, codes that were used.

The owner learns of changes on the pages, after the next sign-in, and by e-mail if the account has an address (OWASP ASVS 5.0, 6.3.7).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from fhir_server.smart.accounts.users import User, account_family
from fhir_server.smart.core import notice_queue
from fhir_server.smart.core.context import DAY, digest
from fhir_server.store import Store

EventKind = Literal[
    "signed-in",
    "opened",
    "password",
    "password-code",
    "password-mail",
    "second",
    "second-ended",
    "second-forgotten",
    "contact",
    "contact-ended",
    "code-used",
]
DESCRIPTIONS: Final[dict[EventKind, str]] = {
    "signed-in": "Signed in",
    "opened": "Account opened",
    "password": "Password changed",
    "password-code": "Password set with a code from our office",
    "password-mail": "Password set with a code from an e-mail",
    "second": "Two-step verification turned on",
    "second-ended": "Two-step verification turned off",
    "second-forgotten": "Two-step verification reset by our office",
    "contact": "E-mail address for codes and notices set",
    "contact-ended": "E-mail address for codes and notices removed",
    "code-used": "Your code for access to your record was used",
}
LIFE: Final = 400 * DAY
MAX_EVENTS: Final = 12
_KIND: Final = "account-events"
_NO_NOTICE: Final = frozenset({"signed-in", "contact-ended"})  # the removed address is told of its end


class AccountEvent(msgspec.Struct, frozen=True):
    """One event.  ``at`` is in microseconds; ``browser`` is a description, "" for an event without a browser.

    ``by``  the name of another person who did it; "" for the owner or the office
    """

    at: int
    kind: EventKind = msgspec.field(name="what")
    browser: str = ""
    by: str = ""


async def record(store: Store, user: User, kind: EventKind, now: int, browser: str = "", by: str = "") -> None:
    """Add an event to the account's list. The list holds :data:`MAX_EVENTS` events; the oldest is dropped.

    A change of how the account is signed in to is also queued as a notice to its e-mail address.
    """
    events = (AccountEvent(now, kind, browser, by), *await list_events(store, user, now))[:MAX_EVENTS]
    await store.key_values.put(_KIND, digest(user.subject), msgspec.json.encode(events), now + LIFE, account_family(user))
    if kind not in _NO_NOTICE:
        await notice_queue.add(store, "security", subject=user.subject)


async def list_events(store: Store, user: User, now: int) -> tuple[AccountEvent, ...]:
    """Return the account's events, the latest first."""
    text = await store.key_values.get(_KIND, digest(user.subject), now)
    return () if text is None else msgspec.json.decode(text, type=tuple[AccountEvent, ...])


def changes_since_last_sign_in(events: tuple[AccountEvent, ...]) -> list[AccountEvent]:
    """Return the changes since the sign-in before the latest one."""
    sign_ins = [index for index, event in enumerate(events) if event.kind == "signed-in"]
    return [event for event in events[: sign_ins[1] if len(sign_ins) > 1 else None] if event.kind != "signed-in"]
