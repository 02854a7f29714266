"""Writes of different clients to the SQLite store are done in turn.  The tests count jobs, not time."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from fhir_server import budget
from fhir_server.budget import Budget, BudgetLimits
from fhir_server.memory import Held
from fhir_server.store.sqlite import SqliteStore, writer
from fhir_server.store.sqlite.job_queue import JobQueue


def test_clients_have_their_jobs_done_in_turn() -> None:
    queue = JobQueue[str]()
    for client, job in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), (None, "n1"), ("b", "b2")):
        queue.put(client, job)
    first = queue.take()
    queue.put("c", "c1")
    rest = [queue.take() for _ in range(6)]
    assert [first, *rest] == ["a1", "b1", "n1", "a2", "c1", "b2", "a3"]
    assert queue.is_empty and queue.take() is None


def test_a_closed_queue_gives_out_what_waits_and_takes_no_more() -> None:
    queue = JobQueue[str]()
    queue.put("a", "a1")
    queue.close()
    assert queue.take(wait=True) == "a1" and queue.take(wait=True) is None
    with pytest.raises(RuntimeError):
        queue.put("a", "a2")


@pytest.mark.parametrize(("closes", "found"), [(False, "a1"), (True, None)])
def test_who_waits_for_a_job_is_woken(closes: bool, found: str | None) -> None:
    queue, taken = JobQueue[str](), list[str | None]()
    waiting = threading.Thread(target=lambda: taken.append(queue.take(wait=True)))
    waiting.start()
    if closes:
        queue.close()
    else:
        queue.put("a", "a1")
    waiting.join()
    assert taken == [found]


@pytest.mark.parametrize(("seconds", "together"), [(-1.0, 1), (1000.0, 40)])
def test_one_write_beside_a_crowd_of_one_client(seconds: float, together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long jobs of one client are committed one by one, and another client's is done after the first of them; short ones share commits."""
    monkeypatch.setattr(writer, "_BATCH_SECONDS", seconds)
    store = SqliteStore(tmp_path / "store.sqlite")
    order: list[str] = []
    commits: list[int] = []
    assert store._writer is not None
    right = store._writer._transaction.commit

    def commit() -> None:
        right()
        commits.append(len(order))

    monkeypatch.setattr(store._writer._transaction, "commit", commit)
    begun, go_on = threading.Event(), threading.Event()
    crowd, other = Held(), Held()

    async def write(client: Held, name: str, *, waits: bool = False) -> None:
        def job(_: object) -> None:
            if waits:
                begun.set()
                go_on.wait()
            order.append(name)

        await budget.metered(store.run(job), Budget(BudgetLimits(), held=client))

    async def main() -> None:
        tasks = [asyncio.create_task(write(crowd, "crowd", waits=True))]
        await asyncio.to_thread(begun.wait)
        tasks += [asyncio.create_task(write(crowd, "crowd")) for _ in range(39)]
        tasks += [asyncio.create_task(write(other, "other"))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    asyncio.run(store.close())
    assert order.index("other") <= 2 and len(order) == 41
    assert max(after - before for before, after in zip([0, *commits], commits, strict=False)) == together


def test_a_job_that_fails_beside_others_affects_none(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite")

    def bad(_: object) -> None:
        raise ValueError("no")

    async def main() -> list[object]:
        return await asyncio.gather(*[store.run(bad if number % 3 == 0 else lambda _: 1) for number in range(30)], return_exceptions=True)

    found = asyncio.run(main())
    asyncio.run(store.close())
    assert [one == 1 for one in found] == [number % 3 != 0 for number in range(30)]
