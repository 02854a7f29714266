"""Fair turns: requests of different clients are served in turn, however many each client sends.

A request works in the event loop in steps: its beginning, and what follows each time it lets others go on.  Each step needs a
turn.  While nobody waits, a turn costs next to nothing.  Otherwise the clients have their turns one after the other, so that
a client with 64 connections delays another by a few steps and not by 64 requests.  Between turns the loop looks at its
connections: what has just arrived is not behind what has waited longer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from time import perf_counter
from typing import Final

from fhir_server.memory import Held, WorkingMemory

_MOST_AT_ONCE: Final = 8  # turns before the loop looks at its connections again, while steps are short
_LONG: Final = 0.004  # seconds of a round after which the next one has a single turn


class Line:
    """The requests of one client: how many are being served, those that go on, and those that have not begun.

    ``held``  what the client's requests hold together
    """

    __slots__ = ("begun", "go_on", "held", "new", "paused")

    def __init__(self, turns: Turns) -> None:
        self.begun = 0
        self.paused: deque[asyncio.Future[None]] = deque()
        self.new: deque[asyncio.Future[None]] = deque()
        self.held = Held(turns.memory)
        self.go_on = partial(turns.go_on, self)

    def next(self, limit: int) -> asyncio.Future[None] | None:
        """The request whose turn it is; first those that have begun, because they hold memory."""
        if self.paused:
            return self.paused.popleft()
        if self.new and self.begun < limit:
            self.begun += 1
            return self.new.popleft()
        return None


class Turns:
    """Gives turns to requests.  ``limit``: how many requests of one client are served at a time; ``memory``: what they work in."""

    def __init__(self, limit: int, memory: WorkingMemory | None = None, *, clients: int = 4096) -> None:
        self._limit = limit
        self.memory = memory
        self._clients = clients
        self._lines: dict[str, Line] = {}
        self._waiting: dict[Line, None] = {}  # those in which requests wait, in the order of turns
        self._taken = 0  # turns since the last round
        self._worked = 0.0  # seconds of work of requests that have ended since
        self._at_once = _MOST_AT_ONCE
        self._round: asyncio.Handle | None = None
        self._round_began = 0.0

    def line(self, client: str) -> Line:
        """The line of this client."""
        line = self._lines.get(client)
        if line is None:
            if len(self._lines) >= self._clients:
                self._lines = {name: kept for name, kept in self._lines.items() if kept.begun or kept.new or not kept.held.is_nothing}
            line = self._lines[client] = Line(self)
        return line

    def may_begin(self, line: Line) -> bool:
        """Begin a request if nobody waits.  Then it must :meth:`end`; otherwise it must wait with :meth:`begin`."""
        if self._waiting or self._taken >= _MOST_AT_ONCE or self._worked > _LONG or line.begun >= self._limit:
            return False
        self._taken += 1
        line.begun += 1
        if self._taken >= _MOST_AT_ONCE and self._round is None:
            self._schedule()
        return True

    async def begin(self, line: Line) -> None:
        """Wait for the first turn of a request.  Then it must :meth:`end`."""
        if not self.may_begin(line):
            await self._wait(line, line.new)

    async def go_on(self, line: Line) -> None:
        """Wait for a further turn of a request that has begun."""
        await self._wait(line, line.paused)

    def end(self, line: Line, seconds: float = 0.0) -> None:
        """End a request that has begun and has worked for this long."""
        line.begun -= 1
        self._worked += seconds
        if self._round is None and (line.new or self._worked > _LONG):
            self._schedule()

    async def _wait(self, line: Line, queue: deque[asyncio.Future[None]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._waiting[line] = None
        if self._round is None:
            self._schedule()
        try:
            await turn
        except asyncio.CancelledError:
            if turn in queue:
                queue.remove(turn)
            elif queue is line.new:
                self.end(line)  # its turn came at the same moment
            raise

    def _schedule(self) -> None:
        self._round_began = perf_counter()
        self._round = asyncio.get_running_loop().call_soon(self._next_round)

    def _next_round(self) -> None:
        """Give turns to clients in order, as many as the loop can do before it should look at its connections again."""
        is_long = max(perf_counter() - self._round_began, self._worked) > _LONG
        self._at_once = 1 if is_long else min(2 * self._at_once, _MOST_AT_ONCE)
        self._taken, self._worked = 0, 0.0
        self._round = None
        passed = 0
        while self._taken < self._at_once and passed < len(self._waiting):
            line = next(iter(self._waiting))
            del self._waiting[line]
            turn = line.next(self._limit)
            if line.paused or line.new:
                self._waiting[line] = None  # to the end
            if turn is None:
                passed += bool(line.new)  # at its limit
                continue
            passed = 0
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

    def get(self, authorization: str) -> str | None:
        """The name of the client or person; None if the header is not known."""
        return self._names.get(hash(authorization))

    def put(self, authorization: str, name: str) -> None:
        """Note whose token this header has."""
        key = hash(authorization)
        if key not in self._names:
            if len(self._names) >= self._size:
                del self._names[next(iter(self._names))]
            self._names[key] = name
