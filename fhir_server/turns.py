"""Fair turns: requests of different clients are served in turn, however many each client sends.

A request works in the event loop in steps: its beginning, and what follows each time it lets others go on.  Each step needs a
turn.  While nobody waits, a turn costs next to nothing.  Otherwise the clients have their turns one after the other, so that
a client with 64 connections delays another by a few steps and not by 64 requests.  Between turns the loop looks at its
connections: what has just arrived is not behind what has waited longer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from time import perf_counter
from typing import Final

_MOST_AT_ONCE: Final = 8  # turns before the loop looks at its connections again, while steps are short
_LONG: Final = 0.004  # seconds of a round after which the next one has a single turn


class _Line:
    """The requests of one client: how many are being served, those that go on, and those that have not begun."""

    __slots__ = ("begun", "new", "paused")

    def __init__(self) -> None:
        self.begun = 0
        self.paused: deque[asyncio.Future[None]] = deque()
        self.new: deque[asyncio.Future[None]] = deque()

    def next(self, limit: int) -> asyncio.Future[None] | None:
        """The request whose turn it is; first those that have begun, because they hold memory."""
        if self.paused:
            return self.paused.popleft()
        if self.new and self.begun < limit:
            self.begun += 1
            return self.new.popleft()
        return None


class Turns:
    """Gives turns to requests.  ``limit``: how many requests of one client are served at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: dict[Hashable, _Line] = {}  # in the order of turns
        self._waiting = 0
        self._taken = 0  # turns in this round
        self._at_once = _MOST_AT_ONCE
        self._round: asyncio.Handle | None = None
        self._round_began = 0.0

    async def begin(self, client: Hashable) -> None:
        """Wait for the first turn of a request.  Then it must :meth:`end`."""
        line = self._lines.get(client)
        if line is None:
            line = self._lines[client] = _Line()
        if not self._waiting and self._taken < self._at_once and line.begun < self._limit:
            self._taken += 1
            line.begun += 1
            if self._round is None:
                self._schedule()
            return
        await self._wait(line, line.new)

    async def go_on(self, client: Hashable) -> None:
        """Wait for a further turn of a request that has begun."""
        await self._wait(self._lines[client], self._lines[client].paused)

    def end(self, client: Hashable) -> None:
        """End a request that has begun."""
        line = self._lines[client]
        line.begun -= 1
        if line.begun == 0 and not line.new:
            del self._lines[client]
        elif line.new and self._round is None:
            self._schedule()

    async def _wait(self, line: _Line, queue: deque[asyncio.Future[None]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._waiting += 1
        if self._round is None:
            self._schedule()
        try:
            await turn
        except asyncio.CancelledError:
            if turn in queue:
                queue.remove(turn)
                self._waiting -= 1
            elif queue is line.new:
                line.begun -= 1  # its turn came at the same moment
            raise

    def _schedule(self) -> None:
        self._round_began = perf_counter()
        self._round = asyncio.get_running_loop().call_soon(self._next_round)

    def _next_round(self) -> None:
        """Give turns to clients in order, as many as the loop can do before it should look at its connections again."""
        now = perf_counter()
        self._at_once = 1 if now - self._round_began > _LONG else min(2 * self._at_once, _MOST_AT_ONCE)
        self._taken = 0
        self._round = None
        if not self._waiting:
            return
        passed = 0
        while self._waiting and self._taken < self._at_once and passed < len(self._lines):
            client, line = next(iter(self._lines.items()))
            self._lines[client] = self._lines.pop(client)  # to the end
            turn = line.next(self._limit)
            if turn is None:
                passed += 1
                continue
            passed = 0
            self._waiting -= 1
            self._taken += 1
            if not turn.done():
                turn.set_result(None)
        if self._taken:
            self._schedule()


class KnownClients:
    """Whose token an Authorization header had when it was last good, by a hash of the header."""

    def __init__(self, size: int = 4096) -> None:
        self._size = size
        self._names: dict[int, str] = {}

    def get(self, authorization: bytes) -> str | None:
        """The name of the client or person; None if the header is not known."""
        return self._names.get(hash(authorization))

    def put(self, authorization: bytes, name: str) -> None:
        """Note whose token this header has."""
        key = hash(authorization)
        if key not in self._names:
            if len(self._names) >= self._size:
                del self._names[next(iter(self._names))]
            self._names[key] = name
