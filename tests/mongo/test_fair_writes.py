"""Many writers of one row get their turns in order, in one process and in several; counted in turns, never in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fhir_server.store import Store, Transaction
from fhir_server.store.mongodb import MongoStore, retry, transaction, write_queue
from fhir_server.store.mongodb.locks import lock
from fhir_server.store.mongodb.write_queue import TICKETS, Ticket, WriteQueue, new_ticket
from fhir_server.store.sqlite import SqliteStore
from tests.mongo.shared_mongod import fresh_url
from tests.store.samples import record

WRITERS, ROUNDS = 40, 2
BOUND = 2 * retry._MAX_RUNNING + 4  # later writers that may pass one: those that run when it takes its ticket, in each process


@dataclass
class Line:
    """The order in which writes of one row began, and the version that each made."""

    began: list[int] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    async def write(self, store: Store, id: str) -> None:
        place = len(self.began)
        self.began.append(place)
        self.versions.append(0)

        async def job(tx: Transaction) -> int:
            await tx.permission_epoch("p1")
            row = await tx.read_unfiltered("Observation", id)
            version = row.version + 1 if row else 1
            await tx.put(record(id, "p1", version=version))
            return version

        self.versions[place] = await store.write(job)

    def passed(self) -> int:
        """The most writes that began after one and were stored before it."""
        return max(sum(later < own for later in self.versions[place + 1 :]) for place, own in enumerate(self.versions))


async def raced(stores: Sequence[Store], line: Line) -> None:
    async def writer(number: int) -> None:
        for _ in range(ROUNDS):
            await line.write(stores[number % len(stores)], "one")

    await asyncio.gather(*(writer(number) for number in range(WRITERS)))


async def waiting(store: MongoStore) -> list[dict[str, Any]]:
    """The tickets in the queue."""
    found = await store.connection.counters.find_one({"_id": TICKETS})
    return list(found["waiting"]) if found else []


def with_mongodb(count: int, job: Callable[[Sequence[MongoStore]], Awaitable[None]]) -> None:
    async def run() -> None:
        url = fresh_url()
        stores = [MongoStore(url) for _ in range(count)]
        for store in stores:
            await store.prepare()
        await job(stores)
        assert all(ticket["process"] not in {store._runner._queue._process for store in stores} for ticket in await waiting(stores[0]))
        for store in stores:
            await store.close()

    asyncio.run(run())


@pytest.mark.parametrize("processes", (1, 2))
def test_writers_of_one_row_wait_for_few_turns(processes: int) -> None:
    line = Line()
    with_mongodb(processes, lambda stores: raced(stores, line))
    assert sorted(line.versions) == list(range(1, WRITERS * ROUNDS + 1))  # none is lost
    assert line.passed() <= BOUND


def test_writers_of_one_row_of_sqlite_keep_their_order(tmp_path: Path) -> None:
    line = Line()

    async def run() -> None:
        store = SqliteStore(tmp_path / "store.sqlite")
        await raced((store,), line)
        await store.close()

    asyncio.run(run())
    assert sorted(line.versions) == list(range(1, WRITERS * ROUNDS + 1)) and line.passed() == 0


@pytest.mark.slow
def test_writers_without_a_queue_pass_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(queue: WriteQueue, ticket: Ticket, keys: Collection[str]) -> bool:
        return False

    monkeypatch.setattr(WriteQueue, "wait", at_once)
    monkeypatch.setattr(transaction, "blocked_keys", lambda waiting, ticket: frozenset())
    line = Line()
    with_mongodb(2, lambda stores: raced(stores, line))
    assert sorted(line.versions) == list(range(1, WRITERS * ROUNDS + 1))
    assert line.passed() > BOUND


def test_ticket_of_a_dead_process_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_queue, "_LEASE", 1)
    line = Line()

    async def job(stores: Sequence[MongoStore]) -> None:
        dead = WriteQueue(stores[0].connection.counters)
        assert not await dead.wait(new_ticket(), {lock("row", "Observation/one")})
        dead._own.clear()  # it renews nothing any more
        await asyncio.gather(*(line.write(stores[0], "one") for _ in range(5)))

    with_mongodb(1, job)
    assert sorted(line.versions) == [1, 2, 3, 4, 5]


def test_newcomer_lines_up_behind_a_ticket_of_another_process() -> None:
    """It does not even send its write: whoever began earlier would fail by it."""

    async def job(stores: Sequence[MongoStore]) -> None:
        first, line = WriteQueue(stores[0].connection.counters), Line()
        ticket = new_ticket()
        await first.wait(ticket, {lock("row", "Observation/one")})
        later = asyncio.create_task(line.write(stores[1], "one"))
        while len(await waiting(stores[0])) < 2:
            await asyncio.sleep(0)
        assert line.versions == [0]
        await line.write(stores[0], "another")  # other rows are not held up
        await first.leave(ticket)
        await later
        assert line.versions == [1, 1]

    with_mongodb(2, job)


def test_tickets_keep_their_place_when_they_name_more() -> None:
    async def job(stores: Sequence[MongoStore]) -> None:
        queue, other = (WriteQueue(store.connection.counters) for store in stores)
        one, two, three = new_ticket(), new_ticket(), new_ticket()
        assert not await queue.wait(one, {"a"}) and not await other.wait(two, {"b"})
        behind = asyncio.create_task(other.wait(three, {"a"}))
        assert not await queue.wait(one, {"b"})  # it was there first
        assert [set(ticket["keys"]) for ticket in await waiting(stores[0])][:2] == [{"a", "b"}, {"b"}]
        for queued, ticket in ((queue, one), (other, two)):
            await queued.leave(ticket)
        assert await behind in (True, False)
        await other.leave(three)

    with_mongodb(2, job)
