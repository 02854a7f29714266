"""Snapshots that never hold up the event loop: what takes long runs again in another thread.

A short read runs on the calling thread, because another thread would cost ten times as much.  A read that is not done after
some milliseconds is given up and starts again in a thread, with the same connection and so in the same snapshot.  SQLite
runs there without Python's global lock.  One that has only waited for the processor goes on: to begin again would cost it more.

The long reads of one client leave a thread to others, and clients whose reads wait have their turns one after the other.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from time import monotonic, thread_time
from typing import Any, Final, TypeVar

import apsw

from fhir_server import budget
from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position, RowEntries, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import Page, Row
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.reader import SECONDS, SqliteSnapshot, TakesLongError
from fhir_server.store.version_history import VersionStamp

T = TypeVar("T")
THREADS: Final = 2  # reads that take long run at the same time, at most: more would wait for Python's global lock
_INLINE: Final = 0.005  # seconds that a read may take on the calling thread
_FEW: Final = 4  # rows that are looked up by their ids as one is read: without a limit of time
_PROLONGED: Final = 2  # times, of a read that did little in its time because others had the processor or the global lock


class LongReads:
    """The threads for reads that take long.  One for each store."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._running: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}  # in the order of turns

    async def run(self, job: Callable[[], T]) -> T:
        """Run the job in a thread, on account of the current request."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sqlite-reader")
        spending = budget.current()
        client = None if spending is None else spending.client
        await self._begin(client)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, budget.on_account(job))
        finally:
            self._end(client)

    async def _begin(self, client: Hashable) -> None:
        """Wait for a thread."""
        if self._may_run(client):
            self._running[client] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(client, deque())
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in queue:
                queue.remove(turn)
            else:
                self._end(client)  # its turn came at the same moment
            raise

    def _may_run(self, client: Hashable) -> bool:
        return self._running.total() < THREADS and self._running[client] < max(1, THREADS - 1)

    def _end(self, client: Hashable) -> None:
        """End a read, and begin those whose turn it is."""
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        if client in self._waiting:
            self._waiting[client] = self._waiting.pop(client)  # after those who have waited meanwhile
        for waiting in list(self._waiting):
            queue = self._waiting[waiting]
            if queue and self._may_run(waiting):
                self._running[waiting] += 1
                turn = queue.popleft()
                if not turn.done():  # otherwise its request was given up, and ends the read itself
                    turn.set_result(None)
                self._waiting[waiting] = self._waiting.pop(waiting)  # to the end
            if not queue:
                del self._waiting[waiting]

    def close(self) -> None:
        """Wait for the reads that run."""
        if self._threads is not None:
            self._threads.shutdown()


class ReadingSnapshot(SqliteSnapshot):
    """A snapshot for the event loop.  See the module's text."""

    def __init__(self, connection: apsw.Connection, names: Names, long_reads: LongReads, *, seconds: float = SECONDS) -> None:
        super().__init__(connection, names, seconds=seconds)
        self._long_reads = long_reads
        self.inline_seconds = _INLINE
        self._began, self._prolonged = 0.0, 0  # CPU time of the thread at the beginning of the time that the read has, and of which one

    async def _answer(self, read: Callable[..., Coroutine[Any, Any, T]], *args: Any, **named: Any) -> T:
        """Await the read, which does not suspend; in a thread if it takes long.  Then let others go on if they have waited long."""
        try:
            found = await self._answer_inline(read, *args, **named)
        except TakesLongError:
            found = await self._long_reads.run(lambda: _finish(read(*args, **named)))
        spending = budget.current()
        if spending is not None and spending.is_due:
            await spending.give_way()
        return found

    async def _answer_inline(self, read: Callable[..., Coroutine[Any, Any, T]], *args: Any, **named: Any) -> T:
        """Await the read on this thread.  Raises TakesLongError if it takes long."""
        self._began, self._prolonged = thread_time(), 0
        self.inline_until = monotonic() + self.inline_seconds
        try:
            return await read(*args, **named)
        finally:
            self.inline_until = inf

    def _prolong(self) -> bool:
        if self.inline_until == inf or self._prolonged == _PROLONGED:
            return False
        worked = thread_time()
        if worked - self._began > self.inline_seconds / 2:
            return False
        self._began = worked
        self._prolonged += 1
        self.inline_until = monotonic() + self.inline_seconds
        self._deadline = min(self._ends, self.inline_until)
        return monotonic() <= self._deadline

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        return await self._answer(super().find, type, where, visibility, sort=sort, limit=limit, after=after)

    async def count(self, type: str, where: Filter, visibility: Visibility, *, most: int | None = None) -> int:
        return await self._answer(super().count, type, where, visibility, most=most)

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        return await self._answer(super().patients_of, type, where, visibility)

    async def references_of(self, type: str, param: str, visibility: Visibility, among: frozenset[str] | None = None) -> frozenset[str]:
        return await self._answer(super().references_of, type, param, visibility, among)

    async def entries_of(
        self, type: str, where: Filter, visibility: Visibility, params: Collection[tuple[str, str]], limit: int
    ) -> tuple[RowEntries, ...]:
        return await self._answer(super().entries_of, type, where, visibility, params, limit)

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        targets = tuple(targets)
        if len(targets) <= _FEW:
            return await super().visible(targets, visibilities)
        return await self._answer(super().visible, targets, visibilities)

    async def deleted_unfiltered(self, targets: Iterable[str]) -> frozenset[str]:
        targets = tuple(targets)
        if len(targets) <= _FEW:
            return await super().deleted_unfiltered(targets)
        return await self._answer(super().deleted_unfiltered, targets)

    async def versions(self, type: str, id: str, visibility: Visibility, numbers: Collection[int] | None = None) -> tuple[Row, ...]:
        return await self._answer(super().versions, type, id, visibility, numbers)

    async def stamps_unfiltered(self, type: str, id: str, numbers: Collection[int]) -> dict[int, VersionStamp]:
        return await self._answer(super().stamps_unfiltered, type, id, numbers)


def _finish(read: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        read.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    read.close()
    raise RuntimeError("a read of the SQLite store must not suspend")
