"""A row that is read together with the permission stamp: what is used, what is fetched, and larger results than one reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fhir_server.search.filters import EVERYTHING
from fhir_server.search.visibility import Visibility
from fhir_server.store.mongodb import MongoStore, commands
from fhir_server.store.mongodb.reader import MongoSnapshot
from tests.mongo.command_listener import Listener
from tests.mongo.shared_mongod import fresh_url
from tests.mongo.test_hidden_rows import _OF_SESSION
from tests.mongo.test_query_plans import members
from tests.store.samples import ALL, OBS, clause, put, record, visibility

HIDING = visibility(clause("p1", classes=(0,)))
OTHERS = visibility(clause("p2"))


def with_rows(job: Callable[[MongoStore, Listener], Awaitable[None]], *more: str) -> None:
    """Run the job on a store with a seen row, a hidden one, and ``more`` seen ones."""

    async def run() -> None:
        listener = Listener()
        store = MongoStore(fresh_url(), event_listeners=[listener])
        await put(store, record("seen", "p1"), record("hidden", "p1", class_id=3), *(record(id, "p1") for id in more))
        async with store.snapshot():
            listener.commands.clear()
        await job(store, listener)
        await store.close()

    asyncio.run(run())


async def read(snapshot: MongoSnapshot, id: str, expected: Visibility, asked: Visibility) -> bool:
    snapshot.expect_read(OBS, id, expected)
    await snapshot.permission_epoch("p1")
    return await snapshot.read(OBS, id, asked) is not None


def test_row_and_stamp_are_one_command_of_one_snapshot() -> None:
    async def job(store: MongoStore, listener: Listener) -> None:
        async with store.snapshot() as snapshot:
            assert await read(snapshot, "seen", HIDING, HIDING)
        assert len(listener.of("find", "aggregate")) == 1

    with_rows(job)


@pytest.mark.parametrize("other", (ALL, OTHERS))
def test_row_read_for_other_permissions_is_not_used(other: Visibility) -> None:
    async def job(store: MongoStore, listener: Listener) -> None:
        async with store.snapshot() as snapshot:
            assert not await read(snapshot, "hidden", other, HIDING)
            assert await read(snapshot, "seen", other, HIDING)
            assert await read(snapshot, "hidden", HIDING, ALL)

    with_rows(job)


def test_hidden_row_is_not_fetched_ahead() -> None:
    async def job(store: MongoStore, listener: Listener) -> None:
        async with store.snapshot() as snapshot:
            assert not await read(snapshot, "hidden", HIDING, HIDING)
            assert snapshot._expected is not None and snapshot._expected.found == []

    with_rows(job)


def test_results_larger_than_a_reply_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"r{number}" for number in range(7)]

    async def job(store: MongoStore, listener: Listener) -> None:
        async with store.snapshot() as snapshot:
            found = await snapshot.find(OBS, EVERYTHING, visibility(clause("p1")), limit=100)
            assert sorted(row.id for row in found.rows) == [*ids, "seen"]
            assert await snapshot.patients_of(OBS, EVERYTHING, ALL) == {"p1"}
        assert listener.of("killCursors") and listener.of("getMore") == []

    monkeypatch.setattr(commands, "_ALL", 2)
    with_rows(job, *ids)


def test_count_of_a_record_is_answered_by_an_index_alone() -> None:
    async def job(store: MongoStore, listener: Listener) -> None:
        await put(store, record("shared", "p2", "p1"), record("own", "p1", "p2"), record("other", "p2"))
        async with store.snapshot() as snapshot:
            listener.commands.clear()
            assert await snapshot.count(OBS, EVERYTHING, HIDING) == 33
        (command,) = listener.of("aggregate")
        asked: dict[str, Any] = {member: value for member, value in command.items() if member not in _OF_SESSION}
        pipelines = [asked["pipeline"][:2], asked["pipeline"][2]["$unionWith"]["pipeline"]]
        database = store.connection.database
        plans = [await database.command("explain", {**asked, "pipeline": one}, verbosity="executionStats") for one in pipelines]
        assert sum(members(plans[0], "totalDocsExamined")) == 0 and "of_first_patient" in repr(plans[0])
        assert sum(members(plans[1], "totalDocsExamined")) <= 2

    with_rows(job, *(f"r{number}" for number in range(30)))
