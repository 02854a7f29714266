"""Long reads of the SQLite store run in threads, of which one client never has all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from math import inf
from typing import Any

import pytest

from fhir_server import budget
from fhir_server.budget import Budget, BudgetLimits
from fhir_server.memory import Held
from fhir_server.store.sqlite import long_reads
from fhir_server.store.sqlite.long_reads import LongReads, ReadingSnapshot
from fhir_server.store.sqlite.reader import TakesLongError


async def read(reads: LongReads, client: Held | None, name: str, order: list[str], until: threading.Event | None = None) -> None:
    """A long read of a client, which begins when it may and ends when the event says so."""

    def job() -> None:
        order.append(name)
        if until is not None:
            until.wait()

    async def work() -> None:
        await reads.run(job)

    await (work() if client is None else budget.metered(work(), Budget(BudgetLimits(), held=client)))


def together(reads: LongReads, *jobs: Coroutine[Any, Any, None], end: threading.Event, settled: int) -> None:
    """Begin all jobs; when no more than ``settled`` can be running, let them end."""

    async def all_of() -> None:
        tasks = [asyncio.create_task(job) for job in jobs]
        for _ in range(20):
            await asyncio.sleep(0)
        assert reads._running.total() == settled
        end.set()
        await asyncio.gather(*tasks)

    asyncio.run(all_of())
    reads.close()
    assert not reads._running and not reads._waiting


def test_one_client_leaves_a_thread_to_others() -> None:
    reads, greedy, other, end, order = LongReads(), Held(), Held(), threading.Event(), list[str]()
    first = [read(reads, greedy, f"greedy {number}", order, end) for number in range(6)]
    together(reads, *first, read(reads, other, "other", order, end), end=end, settled=2)
    assert sorted(order[:2]) == ["greedy 0", "other"]
    assert len(order) == 7


def test_clients_that_wait_have_their_turns_one_after_the_other() -> None:
    reads, end, order = LongReads(), threading.Event(), list[str]()
    clients = [Held() for _ in range(4)]
    jobs = [read(reads, clients[number // 3], f"{number // 3}", order, end) for number in range(12)]
    together(reads, *jobs, end=end, settled=2)
    assert sorted(order[:4]) == ["0", "1", "2", "3"]
    assert sorted(order) == sorted("012" * 3 + "333")


def test_reads_without_a_client_run() -> None:
    reads, end, order = LongReads(), threading.Event(), list[str]()
    together(reads, *[read(reads, None, f"{number}", order, end) for number in range(3)], end=end, settled=1)
    assert order == ["0", "1", "2"]


def test_a_read_given_up_while_it_waits_leaves_its_place() -> None:
    reads, client, end, order = LongReads(), Held(), threading.Event(), list[str]()

    async def scenario() -> None:
        running = asyncio.create_task(read(reads, client, "running", order, end))
        waiting = [asyncio.create_task(read(reads, client, name, order)) for name in ("given up", "also", "last")]
        for _ in range(20):
            await asyncio.sleep(0)
        waiting[0].cancel()
        end.set()
        while reads._waiting and len(reads._waiting[client]) > 1:  # the turn of the second one has come
            await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.gather(running, waiting[2])
        for task in waiting[:2]:
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(scenario())
    reads.close()
    assert "given up" not in order and order[0] == "running" and order[-1] == "last"
    assert not reads._running and not reads._waiting


def test_a_read_given_up_at_the_moment_of_its_turn_leaves_its_place() -> None:
    reads, client = LongReads(), Held()

    async def scenario() -> None:
        await reads._begin(client)
        waiting = asyncio.create_task(reads._begin(client))
        await asyncio.sleep(0)
        waiting.cancel()
        reads._end(client)  # before the waiting one learns that it is given up
        with suppress(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())
    assert not reads._running and not reads._waiting


class Snapshot(ReadingSnapshot):
    """A snapshot that reads nothing, and whose time on the calling thread is used up some times."""

    def __init__(self, times: int) -> None:
        self.inline_seconds, self.times, self.threads = 3600.0, times, list[int]()
        self._long_reads = LongReads()
        self._ends = inf

    async def work(self) -> str:
        self.threads.append(threading.get_ident())
        for _ in range(self.times):
            if self.inline_until != inf:
                self.inline_until = 0.0
            if self._is_late():
                raise TakesLongError
        return "found"


@pytest.mark.parametrize(("times", "is_inline"), [(0, True), (1, True), (2, True), (3, False)])
def test_a_read_that_only_waited_for_other_threads_goes_on(times: int, is_inline: bool) -> None:
    """Sent to a thread at once, a short read would wait there behind long ones."""
    snapshot = Snapshot(times)
    assert asyncio.run(snapshot._answer(snapshot.work)) == "found"
    snapshot._long_reads.close()
    assert [thread == threading.get_ident() for thread in snapshot.threads] == ([True] if is_inline else [True, False])


def test_a_read_that_worked_for_long_goes_to_a_thread_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 1_000_000, 10_000))
    monkeypatch.setattr(long_reads, "thread_time", lambda: next(times))
    snapshot = Snapshot(1)
    assert asyncio.run(snapshot._answer(snapshot.work)) == "found"
    snapshot._long_reads.close()
    assert [thread == threading.get_ident() for thread in snapshot.threads] == [True, False]
