"""Use of a session, which moves the instant at which it lapses: by its person on pages, and by apps that were allowed it.

SMART App Launch lets an app with ``online_access`` go on "as long as the end-user remains online".  A person who works in the app is
online, so requests with its tokens count as use, until the session reaches its greatest age.  They come often, so only one in a minute
is written, and the idle time after an app's use is up to a minute shorter.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from fhir_server.errors import Problem
from fhir_server.smart.core.context import MINUTE, SESSION_IDLE, SESSION_LIFE
from fhir_server.smart.core.token_grants import SESSION, SESSION_SEEN
from fhir_server.store import Store

INTERVAL: Final = MINUTE
_MOST: Final = 4096


class _Started(msgspec.Struct, frozen=True):
    """The part of a stored session that its greatest age follows from."""

    started: int


async def extend(store: Store, key: str, now: int, interval: int = INTERVAL) -> int:
    """Let an open session lapse later, unless that was done less than ``interval`` microseconds ago.  Revives none that has ended.

    Returns the instant from which it is to be done again.
    """
    values = store.key_values
    seen, text = await values.get(SESSION_SEEN, key, now), await values.get(SESSION, key, now)
    if seen is None or text is None:
        return now + interval
    before, lapses = int(seen or 0), min(now + SESSION_IDLE, msgspec.json.decode(text, type=_Started).started + SESSION_LIFE)
    if now < before - SESSION_IDLE + interval:
        return before - SESSION_IDLE + interval
    if lapses > before:  # fails if another request has done it, or the session ended
        await values.replace_value(SESSION_SEEN, key, seen, str(lapses).encode(), lapses)
    return now + interval


class AppUse:
    """Notes the use of sessions by the requests of apps at one process, which looks at the store once in an interval for each session."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next: OrderedDict[str, int] = OrderedDict()

    async def note(self, key: str, now: int) -> None:
        """A request used a token that ends with the session of this key ("": with none).  It is answered whether this succeeds or not."""
        if not key or now < self._next.get(key, 0):
            return
        self._next[key] = now + INTERVAL  # first: parallel requests need not look, too
        self._next.move_to_end(key)
        if len(self._next) > _MOST:
            self._next.popitem(last=False)
        try:
            self._next[key] = await extend(self._store, key, now)
        except Problem:  # the store is busy; the next request tries again
            self._next.pop(key, None)
