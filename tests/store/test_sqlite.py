"""The SQLite store: its file, its query plans, its limits, and several processes on one file."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from fhir_server.errors import Problem
from fhir_server.search.filters import (
    EVERYTHING,
    AllOf,
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    Not,
    Present,
    RefersTo,
    TextIs,
    TokenIs,
)
from fhir_server.search.rows import Position, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import LogEntry, Store, open_store
from fhir_server.store.sqlite import SqliteStore, reader, schema
from tests.store.samples import ALL, ANYONE, OBS, clause, date, found, put, record, reference, string, token, visibility
from tests.waiting import wait_until


def opened(path: Path, scenario: Callable[[Any], Awaitable[Any]], **more: Any) -> Any:
    async def whole() -> Any:
        store = SqliteStore(path, **more)
        try:
            return await scenario(store)
        finally:
            await store.close()

    return asyncio.run(whole())


@pytest.mark.parametrize("url", ["sqlite:", "sqlite:x.db", "sqlite://host/x.db", "sqlite:///", "nothing:///x", "copying:///x", ""])
def test_invalid_store_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        open_store(url)


def test_relative_path_is_resolved_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///here.db")
    asyncio.run(store.close())
    assert (tmp_path / "here.db").exists()


def test_database_files_are_readable_by_owner_only(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a"))
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
        assert len(list(tmp_path.iterdir())) == 3

    opened(tmp_path / "x.db", scenario)


def test_database_file_of_newer_schema_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with apsw.Connection(str(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="later version"):
        SqliteStore(path)
    with apsw.Connection(str(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_schema").get == 0


def test_non_database_file_and_missing_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(ValueError, match="not an SQLite database"):
        SqliteStore(tmp_path / "text")
    with pytest.raises(OSError, match="does not exist"):
        SqliteStore(tmp_path / "none" / "x.db")


def test_written_data_persists_after_reopening(tmp_path: Path) -> None:
    async def write(store: Store) -> None:
        await put(store, record("a", "p1", "p2", entries=[token("code", "x"), date("when", 5)]))
        await store.key_values.put_if_absent("kind", "key", b"value", 2**62)
        await store.append_log("audit", [LogEntry(b"line")])

    async def read(store: Store) -> None:
        assert await found(store, Has("code", TokenIs("s", "x")), visibility(clause("p2"))) == ["a"]
        assert await store.key_values.get("kind", "key", 0) == b"value"
        assert [line for _, line in await store.read_log("audit")] == [b"line"]
        await put(store, record("b", "p1"), record("a", "p1", version=2))
        assert await found(store, EVERYTHING, visibility(clause("p1"))) == ["a", "b"]

    opened(tmp_path / "x.db", write)
    opened(tmp_path / "x.db", read)


PLANNED: dict[str, Filter] = {
    "all": EVERYTHING,
    "token": Has("code", TokenIs("s", "x")),
    "token of any system": Has("code", TokenIs(None, "x")),
    "reference": Has("of", RefersTo(frozenset({"Patient/1"}))),
    "tokens": AnyOf((Has("code", TokenIs("s", "x")), Has("code", TokenIs("s", "y")))),
    "two": AllOf((Has("code", TokenIs("s", "x")), Has("of", RefersTo(frozenset({"Patient/1"}))))),
    "date": Has("when", DateIs("ge", 5, 9)),
    "text": Has("name", TextIs("a", "contains")),
    "negation": Not(Has("code", TokenIs("s", "x"))),
    "present": Present("code", "token"),
}


@pytest.mark.parametrize("sort", [(), (SortKey("when", "date", True),)], ids=["unsorted", "sorted"])
@pytest.mark.parametrize("patients", [("p1",), ("p1", "p2", "p3")], ids=["one", "several"])
@pytest.mark.parametrize("where", PLANNED.values(), ids=PLANNED)
def test_patient_search_reads_only_ranges_of_that_patients_rows(
    tmp_path: Path, where: Filter, patients: tuple[str, ...], sort: tuple[SortKey, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[str] = []
    right = reader.SqliteSnapshot.rows

    def explained(self: Any, sql: str, args: tuple[Any, ...]) -> Any:
        plans.extend([detail for _, _, _, detail in right(self, "EXPLAIN QUERY PLAN " + sql, args)])
        return right(self, sql, args)

    async def scenario(store: Store) -> None:
        await put(store, *(record(f"r{n}", f"p{n % 4}", entries=_entries(n)) for n in range(40)))
        monkeypatch.setattr(reader.SqliteSnapshot, "rows", explained)
        for limit in (5, 50):
            async with store.snapshot() as snapshot:
                page = await snapshot.find(OBS, where, visibility(clause(*patients)), sort=sort, limit=limit)
                assert page.rows

    opened(tmp_path / "x.db", scenario)
    steps = [
        step
        for step in plans
        if step.startswith(("SEARCH", "SCAN")) and _table(step) not in ("s", "b", "p", "c", "h", "i", "carray") and "(subquery" not in step
    ]
    assert steps
    for step in steps:
        assert step.startswith("SEARCH"), plans
        bounded = "rid>? AND rid<?" in step or "rid=?" in step or "rowid=?" in step or _table(step) == "also"
        assert bounded or "patient=?" in step or "id=?" in step, step


def _table(step: str) -> str:
    return step.split()[1]


def _entries(n: int) -> list[Any]:
    return [token("code", "xxy"[n % 3]), reference("of", "Patient/1"), date("when", n), string("name", "a")]


def test_slow_read_is_ended_as_busy_and_the_store_still_works(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *(record(f"r{n}", entries=[date("when", n)]) for n in range(3000)))
        async with store.snapshot() as snapshot:
            with pytest.raises(Problem) as refused:
                await snapshot.find(OBS, EVERYTHING, ANYONE, sort=(SortKey("when", "date"), SortKey("_id", "token")), limit=5)
            assert refused.value.kind == "busy"
            assert await snapshot.read(OBS, "r7", ANYONE)
        await put(store, record("more"))

    opened(tmp_path / "x.db", scenario, seconds=0.0)


def test_transaction_awaiting_other_work_is_refused_and_rolled_back(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        async def job(transaction: Any) -> None:
            await transaction.put(record("a"))
            await asyncio.sleep(0)

        with pytest.raises(RuntimeError, match="must not await anything but its transaction"):
            await store.write(job)
        assert await found(store, EVERYTHING) == []

    opened(tmp_path / "x.db", scenario)


def test_canceled_write_does_not_affect_other_writes(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        tasks = [asyncio.ensure_future(put(store, record(f"r{n}"))) for n in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1::2] == [None] * 10
        ids = await found(store, EVERYTHING)
        assert {f"r{n}" for n in range(1, 20, 2)} <= set(ids)

    opened(tmp_path / "x.db", scenario)


def test_patients_with_colliding_digests_stay_separate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhir_server.store.sqlite.interning.patient_number", lambda id: 2**31 - 1)

    async def scenario(store: Store) -> None:
        await put(store, *(record(f"r{n}", f"p{n}") for n in range(5)))
        for n in range(5):
            assert await found(store, EVERYTHING, visibility(clause(f"p{n}"))) == [f"r{n}"]

    opened(tmp_path / "x.db", scenario)


def test_many_snapshots_can_be_open_at_once(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a"))
        held = [store.snapshot() for _ in range(10)]
        snapshots = [await one.__aenter__() for one in held]
        assert [await one.count(OBS, EVERYTHING, ALL) for one in snapshots] == [1] * 10
        await put(store, record("b"))
        assert [await one.count(OBS, EVERYTHING, ALL) for one in snapshots] == [1] * 10
        for one in held:
            await one.__aexit__(None, None, None)
        assert await found(store, EVERYTHING) == ["a", "b"]

    opened(tmp_path / "x.db", scenario)


def _write_many(path: Path, name: str, start: Any) -> None:
    async def scenario(store: Store) -> None:
        start.wait()

        async def job(transaction: Any, n: int) -> None:
            number = await transaction.intern_class(f"class{n}")
            await transaction.put(record(f"{name}{n}", f"p{n % 7}", class_id=number, entries=[token(f"code{n % 20}", "x", f"s{n % 11}")]))
            await transaction.advance_epoch("p0")

        await asyncio.gather(*(store.write(lambda t, n=n: job(t, n)) for n in range(100)))

    opened(path, scenario)


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path, start = tmp_path / "x.db", context.Event()
    writers = [context.Process(target=_write_many, args=(path, name, start)) for name in ("left", "right")]
    for writer in writers:
        writer.start()

    async def scenario(store: Store) -> None:
        async with store.snapshot() as snapshot:
            assert await snapshot.classes() == ()
        start.set()
        while any(writer.is_alive() for writer in writers):
            await asyncio.sleep(0.01)
            await put(store, record(f"own{await _count(store)}-{id(object())}", "p0"))
        every = Visibility((clause(classes=range(200)),), 0)
        ids = await found(store, EVERYTHING, every)
        assert {f"{name}{n}" for name in ("left", "right") for n in range(100)} <= set(ids)
        assert len(ids) == len(set(ids))
        for n in range(20):
            assert len(list(await found(store, Has(f"code{n}", TokenIs(None, "x")), every))) == 10
        async with store.snapshot() as snapshot:
            keys = await snapshot.classes()
            assert sorted(keys) == sorted({f"class{n}" for n in range(100)})
            assert (await snapshot.permission_epoch("p0")).patient == 200
            for name in ("left", "right"):
                row = await snapshot.read(OBS, f"{name}42", every)
                assert row is not None
                assert keys[row.class_id] == "class42"

    opened(path, scenario)
    assert [writer.exitcode for writer in writers] == [0, 0]


async def _count(store: Store) -> int:
    async with store.snapshot() as snapshot:
        return await snapshot.count(OBS, EVERYTHING, ALL)


def test_store_in_use_opens_while_another_process_is_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.db"
    opened(path, lambda store: put(store, record("a")))
    monkeypatch.setattr(schema, "_BUSY_SECONDS", 0.1)
    with closing(schema.open_connection(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert opened(path, lambda store: found(store, EVERYTHING)) == ["a"]
        with pytest.raises(Problem, match="Nothing can be written"):  # the lock is held
            opened(path, lambda store: put(store, record("b")))
        other.execute("ROLLBACK")


def test_write_is_not_starved_by_a_process_that_writes_without_pause(tmp_path: Path) -> None:
    """The other connection is without the lock only between two transactions."""
    path = tmp_path / "x.db"
    opened(path, lambda store: put(store, record("a")))
    ended, rounds = threading.Event(), 0

    def write() -> None:
        nonlocal rounds
        connection = schema.open_connection(path)
        while not ended.is_set():
            connection.execute("BEGIN IMMEDIATE; UPDATE counter SET value = value; COMMIT")
            rounds += 1
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_until(lambda: rounds > 10, "the other connection writes")
        for number in range(5):
            opened(path, lambda store, number=number: put(store, record(f"b{number}")))
    finally:
        ended.set()
        thread.join()
    assert len(opened(path, lambda store: found(store, EVERYTHING))) == 6


def test_ids_and_positions_are_looked_up_within_the_type(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", type="Condition"), record("b"))
        async with store.snapshot() as snapshot:
            assert (await snapshot.find(OBS, IdIs(frozenset({"a", "b"})), ANYONE, limit=5)).rows[0].id == "b"
            with pytest.raises(Problem):
                await snapshot.find(OBS, EVERYTHING, ANYONE, limit=5, after=Position((), "a"))

    opened(tmp_path / "x.db", scenario)
