"""The newest rows of a patient: the same answers as by sorting all, at the cost of a page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import apsw
import pytest

from fhir_server.search.filters import EVERYTHING, Filter, Has, TokenIs
from fhir_server.search.rows import SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store.sqlite import SqliteStore, newest, planner
from tests.properties.random_data import Chance
from tests.properties.store_comparison import CASES, found_wrong
from tests.store.samples import OBS, clause, date, put, record, reference, token, visibility
from tests.store.stores import empty_store

NEWEST = (SortKey("when", "date", True),)
TYPES = 25
Fault = Callable[[pytest.MonkeyPatch], None]


def _differences(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the differences from the reference of random searches that sort by date, the newest first."""
    monkeypatch.setattr(newest, "FEW", 0)
    monkeypatch.setattr(Chance, "sort", lambda *_: NEWEST)

    async def run() -> list[str]:
        store = empty_store("sqlite", folder)
        try:
            return await found_wrong(store, types=TYPES, cases=CASES, seed=16)
        finally:
            await store.close()

    return asyncio.run(run())


def test_newest_rows_are_those_of_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    of_clause = newest._of_clause
    monkeypatch.setattr(newest, "_of_clause", lambda *args: used.append(1) or of_clause(*args))
    assert _differences(tmp_path, monkeypatch) == []
    assert len(used) > 300


def _by_any_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "_NOT_GREATER", "1 OR NOT EXISTS (SELECT 1 FROM {} WHERE {} AND y.hi > x.hi)")


def _without_single_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "single_rids", lambda *_: set())


def _after_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "_AFTER", "x.hi < ? AND (x.hi <= ? OR x.rid & {} > ?)")


@pytest.mark.parametrize("fault", [_by_any_date, _without_single_rows, _after_the_day])
def test_comparison_detects_faults_of_the_newest_rows(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert _differences(tmp_path, monkeypatch) != []


def _newest_with_hidden_dates(path: Path) -> list[str]:
    """Return the first page of rows of which half have a later date in a part that the caller does not see."""

    async def run() -> list[str]:
        store = SqliteStore(path)
        await put(store, *(record(f"old{n}", "p1", entries=(date("when", n), date("when", 100 + n, class_id=2))) for n in range(5)))
        await put(store, *(record(f"new{n}", "p1", entries=(date("when", 50 + n),)) for n in range(5)))
        async with store.snapshot() as snapshot:
            page = await snapshot.find(OBS, EVERYTHING, visibility(clause("p1")), sort=NEWEST, limit=3)
        await store.close()
        return [row.id for row in page.rows]

    return asyncio.run(run())


def test_dates_in_hidden_parts_do_not_move_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "FEW", 0)
    assert _newest_with_hidden_dates(tmp_path / "x.db") == ["new4", "new3", "new2"]
    monkeypatch.setattr(newest, "class_admitted", lambda alias, classes: ("1", ()))
    assert _newest_with_hidden_dates(tmp_path / "y.db") != ["new4", "new3", "new2"], "a fault would not be noticed"


CALLERS: dict[str, tuple[Filter, Visibility]] = {
    "patient": (EVERYTHING, visibility(clause("p1"))),
    "patient, by code": (Has("code", TokenIs("s", "even")), visibility(clause("p1"))),
    "held rows too": (EVERYTHING, visibility(clause("p1", released=False))),
    "two patients": (EVERYTHING, visibility(clause("p1", "p2"))),
}


def _steps(path: Path, rows: int) -> dict[str, int]:
    """Return the steps of SQLite's virtual machine for two pages, in a record with so many rows."""

    async def run() -> dict[str, int]:
        store = SqliteStore(path)
        for start in range(0, rows, 500):
            numbers = range(start, min(rows, start + 500))
            made = [(n, (date("when", n * 7919 % 9973), token("code", "odd" if n % 2 else "even"), reference("s", "p1"))) for n in numbers]
            await put(store, *(record(f"r{n}", "p1", class_id=n % 3, entries=entries) for n, entries in made))
        counted: dict[str, int] = {}
        for name, (where, seen) in CALLERS.items():
            async with store.snapshot() as snapshot:
                snapshot.inline_seconds = inf  # a read that goes on in a thread would be counted twice
                steps: list[int] = []

                def add(event: dict[str, Any], steps: list[int] = steps) -> None:
                    steps.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])

                await snapshot.find(OBS, where, seen, sort=NEWEST, limit=10)
                snapshot.connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, add)
                page = await snapshot.find(OBS, where, seen, sort=NEWEST, limit=10)
                assert page.next is not None
                second = await snapshot.find(OBS, where, seen, sort=NEWEST, limit=10, after=page.next)
                snapshot.connection.trace_v2(0, None)
                assert len(page.rows) == len(second.rows) == 10
                counted[name] = sum(steps)
        await store.close()
        return counted

    return asyncio.run(run())


def test_page_of_the_newest_rows_costs_the_same_in_a_record_ten_times_as_long(tmp_path: Path) -> None:
    short, long = _steps(tmp_path / "short.db", 900), _steps(tmp_path / "long.db", 9000)
    assert {name: steps for name, steps in long.items() if steps > 1.2 * short[name]} == {}


def test_step_count_shows_that_all_rows_are_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "FEW", 100_000)
    short, long = _steps(tmp_path / "short.db", 900), _steps(tmp_path / "long.db", 9000)
    assert all(steps > 5 * short[name] for name, steps in long.items())
