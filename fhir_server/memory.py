"""The memory that the requests to the FHIR API work in together: large bodies until their requests end, and answers until they are sent.

There is a limit for all of them, so that a process has a largest size whatever clients ask at the same time.  A large body waits, unread,
until there is room for it.  While half of the memory is in use, a client that has part of it waits before its next request begins.
So whoever uses much waits, and others go on.  An answer that does not fit any more is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Final

from fhir_server.errors import Problem

_SECONDS: Final = 10.0  # that a request waits for room
_FULL: Final = "The server works on too many large requests. Try again later."


class Held:
    """What one client's requests hold: bytes of their bodies, and of the resources in their answers."""

    __slots__ = ("bodies", "memory", "size")

    def __init__(self, memory: WorkingMemory | None = None) -> None:
        self.memory = memory
        self.size = self.bodies = 0

    @property
    def is_nothing(self) -> bool:
        """Whether the client holds no memory."""
        return not self.size and not self.bodies

    def take(self, size: int) -> None:
        """Hold this much more for an answer.  Raises Problem ``busy`` if there is no room in the process."""
        if self.memory is None:
            self.size += size
            return
        with self.memory.lock:
            self.memory.take(size)
            self.size += size

    def give_back(self, size: int) -> None:
        """Hold this much less for answers.  Only in the event loop."""
        if not size:
            return
        if self.memory is None:
            self.size -= size
            return
        with self.memory.lock:
            self.size -= size
            self.memory.used -= size
        self.memory.go_on()

    async def wait_for_body(self, size: int) -> None:
        """Wait until there is room for a body of this size, before any of it is read.  Raises Problem ``busy`` if that takes too long."""
        if self.memory is not None:
            await self.memory.wait(lambda memory: memory.has_room_for_body(self, size))

    def take_for_body(self, size: int, before: int = 0) -> None:
        """Hold this much more for a body that has arrived, and ``before`` in part.  Raises Problem ``busy`` if there is no room."""
        if self.memory is None:
            return
        with self.memory.lock:
            if not self.memory.has_room_for_body(self, size, before):
                raise Problem("busy", _FULL)
            self.memory.used += size
            self.memory.bodies += size
            self.bodies += size

    def give_back_body(self, size: int) -> None:
        """Hold this much less for bodies.  Only in the event loop."""
        if self.memory is None or not size:
            return
        with self.memory.lock:
            self.memory.used -= size
            self.memory.bodies -= size
            self.bodies -= size
        self.memory.go_on()


class WorkingMemory:
    """``total``: the largest number of bytes.  ``seconds``: how long a request waits for room.

    ``used``    the bytes that are held; change them with the ``lock``, because transactions run in another thread
    ``bodies``  those of bodies among them
    """

    def __init__(self, total: int, *, seconds: float = _SECONDS) -> None:
        self.total = total
        self.used = self.bodies = 0
        self.lock = Lock()
        self._seconds = seconds
        self._waiting: deque[tuple[Callable[[WorkingMemory], bool], asyncio.Future[None]]] = deque()

    def take(self, size: int) -> None:
        """Use this much more, with the lock.  Raises Problem ``busy`` if there is no room."""
        if self.used + size > self.total:
            raise Problem("busy", _FULL)
        self.used += size

    def may_begin(self, client: Held) -> bool:
        """Whether a client's next request may begin."""
        return self.used <= self.total // 2 or client.is_nothing

    def has_room_for_body(self, client: Held, size: int, before: int = 0) -> bool:
        """Whether so much of a body fits.  All bodies have half of the memory, and those of one client a quarter; the only one fits."""
        if self.bodies == before:
            return True
        fits = self.used + size <= self.total and self.bodies + size <= self.total // 2
        return fits and client.bodies + size <= self.total // 4

    async def begin(self, client: Held) -> None:
        """Wait until a client's next request may begin.  Raises Problem ``busy`` if that takes too long."""
        await self.wait(lambda memory: memory.may_begin(client))

    async def wait(self, condition: Callable[[WorkingMemory], bool]) -> None:
        """Wait until the condition holds.  Raises Problem ``busy`` if that takes too long."""
        if condition(self):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (condition, turn)
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    await turn
                    if condition(self):  # others may have taken the room since
                        return
                    turn = asyncio.get_running_loop().create_future()
                    waiting = (condition, turn)
                    self._waiting.appendleft(waiting)
        except TimeoutError:
            raise Problem("busy", _FULL) from None
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def go_on(self) -> None:
        """Let those go on for whom there is room now, in the order in which they came."""
        for waiting in list(self._waiting):
            condition, turn = waiting
            if condition(self):
                self._waiting.remove(waiting)
                if not turn.done():
                    turn.set_result(None)
