"""Snapshots that never hold up the event loop: what takes long runs again in another thread.

A short read runs on the calling thread, because another thread would cost ten times as much.  A read that is not done after
some milliseconds is given up and starts again in a thread, with the same connection and so in the same snapshot.  SQLite
runs there without Python's global lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from time import monotonic
from typing import Any, Final, TypeVar

import apsw

from fhir_server import budget
from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import Page, Row
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.reader import SECONDS, SqliteSnapshot, TakesLongError
from fhir_server.store.version_history import VersionStamp

T = TypeVar("T")
THREADS: Final = 2  # reads that take long run at the same time, at most: more would wait for Python's global lock
_INLINE: Final = 0.005  # seconds that a read may take on the calling thread


class LongReads:
    """The threads for reads that take long.  One for each store."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    async def run(self, job: Callable[[], T]) -> T:
        """Run the job in a thread, on account of the current request."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sqlite-reader")
        return await asyncio.get_running_loop().run_in_executor(self._threads, budget.on_account(job))

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

    async def _answer(self, read: Callable[..., Coroutine[Any, Any, T]], *args: Any, **named: Any) -> T:
        """Await the read, which does not suspend; in a thread if it takes long.  Then let others go on if they have waited long."""
        self.inline_until = monotonic() + self.inline_seconds
        try:
            found = await read(*args, **named)
        except TakesLongError:
            self.inline_until = inf
            found = await self._long_reads.run(lambda: _finish(read(*args, **named)))
        finally:
            self.inline_until = inf
        spending = budget.current()
        if spending is not None and spending.is_due:
            await spending.give_way()
        return found

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        return await self._answer(super().find, type, where, visibility, sort=sort, limit=limit, after=after)

    async def count(self, type: str, where: Filter, visibility: Visibility) -> int:
        return await self._answer(super().count, type, where, visibility)

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        return await self._answer(super().patients_of, type, where, visibility)

    async def references_of(self, type: str, param: str, visibility: Visibility, among: frozenset[str] | None = None) -> frozenset[str]:
        return await self._answer(super().references_of, type, param, visibility, among)

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        return await self._answer(super().visible, tuple(targets), visibilities)

    async def deleted_unfiltered(self, targets: Iterable[str]) -> frozenset[str]:
        return await self._answer(super().deleted_unfiltered, tuple(targets))

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
