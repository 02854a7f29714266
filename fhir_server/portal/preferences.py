"""What a person prefers on the pages; stored with the account."""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.accounts.users import User, account_family
from fhir_server.smart.core.context import digest
from fhir_server.store import Store

_KIND: Final = "account-preferences"


class Preferences(msgspec.Struct, frozen=True):
    """``ask_since``: since when the person is asked before a new result is shown, in microseconds since 1970 UTC; None: is not asked."""

    ask_since: int | None = None


async def load(store: Store, user: User, now: int) -> Preferences:
    text = await store.key_values.get(_KIND, digest(user.subject), now)
    return Preferences() if text is None else msgspec.json.decode(text, type=Preferences)


async def save(store: Store, user: User, preferences: Preferences) -> None:
    text = msgspec.json.encode(preferences)
    await store.key_values.put(_KIND, digest(user.subject), text, MAX_INSTANT, account_family(user))
