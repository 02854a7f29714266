"""A SQLite file of an earlier schema is converted when it is opened: answers, history and later writes are the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from fhir_server.search.filters import EVERYTHING, Has, RefersTo, TokenIs
from fhir_server.store import IndexedRow, Store
from fhir_server.store.sqlite import SqliteStore, schema
from fhir_server.store.sqlite.upgrades import STEPS
from tests.store.former_schemas import CHANGED, EARLIER, turn_into_first_schema
from tests.store.histories import fill_former_histories, histories
from tests.store.samples import ALL, NOW, OBS, clause, drop, found, in_job, put, record, reference, token, visibility


def _opened(path: Path, scenario: Callable[[Store], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        store = SqliteStore(path)
        try:
            return await scenario(store)
        finally:
            await store.close()

    return asyncio.run(run())


def _entries(number: int) -> tuple[Any, ...]:
    return token("code", f"c{number % 2}", class_id=number % 3), reference("of", f"Encounter/e{number % 2}", class_id=number % 3)


async def _fill(store: Store) -> None:
    await put(store, *[record(f"r{n}", f"p{n % 2}", class_id=n % 3, entries=_entries(n)) for n in range(12)])
    await put(store, record("shared", "p0", "p1", entries=_entries(0)), record("held", "p0", release_at=NOW + 5, entries=_entries(0)))
    await put(store, record("r0", "p0", version=2, entries=(token("code", "c0"),)))
    await drop(store, "r2")


async def _answers(store: Store) -> list[object]:
    answers: list[object] = []
    for seen in (ALL, visibility(clause("p0")), visibility(clause("p1")), visibility(clause("p0"), now=NOW + 6), visibility(clause())):
        for where in (EVERYTHING, Has("code", TokenIs("s", "c0")), Has("of", RefersTo(frozenset({"Encounter/e0"})))):
            answers.append(await found(store, where, seen))
        async with store.snapshot() as snapshot:
            answers.append(await snapshot.versions(OBS, "r0", seen))
    answers.append(sorted(row.id for row in await in_job(store, "referrers_unfiltered", "Encounter/e0")))
    return answers


def test_there_is_a_file_of_every_earlier_schema() -> None:
    assert sorted(EARLIER) == list(range(1, schema.VERSION))
    assert sorted(STEPS) == list(range(2, schema.VERSION + 1))


@pytest.mark.parametrize("earlier", EARLIER)
def test_file_of_earlier_schema_gives_same_answers(tmp_path: Path, earlier: int) -> None:
    path = tmp_path / "x.db"
    _opened(path, _fill)
    before = _opened(path, _answers)
    EARLIER[earlier](path)
    assert _opened(path, _answers) == before

    async def write(store: Store) -> list[str]:
        await put(store, record("r4", "p0", version=2, class_id=2, entries=_entries(4)), record("new", "p0", entries=_entries(4)))
        return await found(store, EVERYTHING, visibility(clause("p0")))

    shown = _opened(path, write)
    assert "new" in shown
    assert "r4" not in shown


@pytest.mark.parametrize("earlier", EARLIER)
def test_converted_file_has_tables_and_indexes_of_new_file(tmp_path: Path, earlier: int) -> None:
    def layout(path: Path) -> dict[str, list[tuple[Any, ...]]]:
        connection = apsw.Connection(str(path))
        tables = {name: connection.execute(f"PRAGMA table_info({name})").fetchall() for name in (*CHANGED, "band")}
        indexes = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' ORDER BY name").fetchall()
        version = connection.execute("PRAGMA user_version").fetchall()
        connection.close()
        return {**tables, "indexes": indexes, "version": version}

    old, new = tmp_path / "old.db", tmp_path / "new.db"
    _opened(old, _fill)
    EARLIER[earlier](old)
    _opened(old, _answers)
    _opened(new, _fill)
    assert layout(old) == layout(new)


def test_interrupted_conversion_leaves_first_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.db"
    _opened(path, _fill)
    before = _opened(path, _answers)
    turn_into_first_schema(path)
    monkeypatch.setitem(STEPS, schema.VERSION, lambda connection: connection.execute("SELECT no_such_function()").fetchall())
    with pytest.raises(apsw.SQLError):
        SqliteStore(path)
    monkeypatch.undo()
    assert _opened(path, _answers) == before


def test_row_of_changed_class_leaves_its_former_band(tmp_path: Path) -> None:
    def changed(class_id: int) -> IndexedRow:
        return record("a", "p0", class_id=class_id, entries=(token("code", "c0", class_id=class_id),))

    async def scenario(store: Store) -> None:
        await put(store, changed(0))
        where = Has("code", TokenIs("s", "c0"))
        assert await found(store, where, visibility(clause("p0"))) == ["a"]
        await in_job(store, "relabel", changed(2))
        assert await found(store, where, visibility(clause("p0"))) == []
        assert await found(store, where, visibility(clause("p0", classes={2}))) == ["a"]

    _opened(tmp_path / "x.db", scenario)


@pytest.mark.parametrize("earlier", EARLIER)
def test_versions_are_counted_after_an_upgrade_as_before(tmp_path: Path, earlier: int) -> None:
    path = tmp_path / "x.db"
    _opened(path, fill_former_histories)
    before = _opened(path, histories)
    EARLIER[earlier](path)
    assert _opened(path, histories) == before
    assert len(before) > 50


def test_file_of_a_later_schema_is_refused_with_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    _opened(path, _fill)
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    with pytest.raises(ValueError, match=r"written by a later version of this program \(schema \d+, known: \d+\)\.$"):
        SqliteStore(path)
