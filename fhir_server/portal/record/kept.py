"""What an account keeps about a record: when the person last opened each section, and which results they asked to see.

It is stored with the account and never read by the FHIR API, so it is no part of the record.  It holds times of the person's own acts and
ids of rows that the person was shown, and nothing that follows from rows that the person may not see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from fhir_server.errors import Problem
from fhir_server.smart.accounts.users import User, account_family
from fhir_server.smart.core.context import DAY, digest
from fhir_server.store import Store

_KIND: Final = "record-reading"
_LIFE: Final = 3 * 365 * DAY
_MOST: Final = 2_000  # results asked for; the person is asked again about the oldest beyond them
_ATTEMPTS: Final = 5


class Kept(msgspec.Struct, frozen=True):
    """``opened``: by section, ``shown``: by ``Type/id``; instants in microseconds since 1970 UTC."""

    opened: Mapping[str, int] = {}
    shown: Mapping[str, int] = {}


async def load(store: Store, user: User, patient: str, now: int) -> Kept:
    """What the account keeps about the patient's record."""
    return _decoded(await store.key_values.get(_KIND, _key(user, patient), now))


async def note_opened(store: Store, user: User, patient: str, section: str, now: int) -> None:
    """The person opened a section.  While the server is read-only nothing is noted, and the page is shown all the same."""
    try:
        await _change(store, user, patient, now, lambda kept: Kept({**kept.opened, section: now}, kept.shown))
    except Problem as problem:
        if problem.status != 503:
            raise


async def note_shown(store: Store, user: User, patient: str, results: Iterable[str], now: int) -> None:
    """The person asked to see results (``Type/id``)."""
    named = dict.fromkeys(results, now)

    def changed(kept: Kept) -> Kept:
        latest = sorted(({**kept.shown, **named}).items(), key=lambda one: one[1])[-_MOST:]
        return Kept(kept.opened, dict(latest))

    await _change(store, user, patient, now, changed)


async def _change(store: Store, user: User, patient: str, now: int, changed: Callable[[Kept], Kept]) -> None:
    """Two tabs may change it at once: whoever finds it changed begins again."""
    key, expires = _key(user, patient), now + _LIFE
    for _ in range(_ATTEMPTS):
        old = await store.key_values.get(_KIND, key, now)
        new = msgspec.json.encode(changed(_decoded(old)))
        if old is None:
            done = await store.key_values.put_if_absent(_KIND, key, new, expires, account_family(user))
        else:
            done = await store.key_values.replace_value(_KIND, key, old, new, expires)
        if done:
            return


def _decoded(text: bytes | None) -> Kept:
    return Kept() if text is None else msgspec.json.decode(text, type=Kept)


def _key(user: User, patient: str) -> str:
    return digest(f"{user.subject}\0{patient}")
