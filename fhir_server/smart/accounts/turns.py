"""Turns for attempts beyond what is free: one in so many seconds, shared fairly, so that a right password passes in the end.

An attempt that comes when nobody waits has its turn at once.  Any other gets a turn that only the same browser can take, at a time
that the person is told.  A browser waits for one turn at a time, and a network address for a few, so one attacker can neither take
all turns nor make the line long.  All processes share the line in the store.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Final

from fhir_server.smart.core.context import MINUTE, digest
from fhir_server.store import KeyValueStore

TAKE_WITHIN: Final = 10 * MINUTE  # in which a turn that has come can be taken
_LINE: Final = "turns"
_TURN: Final = "turn"
_TIME: Final = struct.Struct(">q")
_MARK: Final = 8  # random bytes: two processes that add the same time do not write the same value


@dataclass(frozen=True, slots=True)
class Line:
    """Turns for the target ``name``, ``interval`` microseconds apart; each party (a network address) may wait for ``places`` of them.

    ``family``  the key family of its records; "" for none
    """

    name: str
    interval: int
    places: int
    family: str = ""

    async def take(self, values: KeyValueStore, party: str, browser: str, now: int) -> int:
        """Return 0 if it is this browser's turn now, and take it; else the microseconds until it may be."""
        free: list[str] = []
        for place in range(self.places):
            key = digest(f"{self.name} {party} {place}")
            held = await values.get(_TURN, key, now)
            if held is None:
                free.append(key)
            elif held[_TIME.size :] == browser.encode():
                (time,) = _TIME.unpack(held[: _TIME.size])
                if now < time:
                    return int(time) - now
                if await values.pop(_TURN, key, now) is not None:
                    return 0
        if not free:
            return self.interval
        time = await self._next(values, now)
        if time > now:
            turn = _TIME.pack(time) + browser.encode()
            for key in free:
                if await values.put_if_absent(_TURN, key, turn, time + TAKE_WITHIN, self.family):
                    break
        return time - now

    async def _next(self, values: KeyValueStore, now: int) -> int:
        """Give away the next turn, and return its time."""
        key = digest(self.name)
        while True:
            old = await values.get(_LINE, key, now)
            time = now if old is None else max(now, int(_TIME.unpack(old[_MARK:])[0]))
            new, expires = os.urandom(_MARK) + _TIME.pack(time + self.interval), time + self.interval
            if old is None and await values.put_if_absent(_LINE, key, new, expires, self.family):
                return time
            if old is not None and await values.replace_value(_LINE, key, old, new, expires):
                return time
