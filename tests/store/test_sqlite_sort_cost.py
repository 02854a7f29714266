"""Sorting costs what the rows found cost, for every sort key: rows of others in the store add no steps of SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import product
from math import inf
from pathlib import Path

import apsw
import pytest

from fhir_server.resources import definitions
from fhir_server.search import query
from fhir_server.search.filters import EVERYTHING, Filter, Has, TokenIs
from fhir_server.search.index import parameters
from fhir_server.search.rows import Entry, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import IndexedRow, Snapshot
from fhir_server.store.sqlite import SqliteStore, sorting
from tests.store.samples import OBS, clause, put, record, visibility

OWN = 40
_PROBES = 60  # steps that deeper indexes may add
# The kind of entry by which the keys of this name sort; every key of R4 is of one of these kinds.
KEYS = {
    "code": "token",
    "subject": "reference",
    "name": "string",
    "when": "date",
    "amount": "quantity",
    "_lastUpdated": "date",
    "_id": "token",
}
SORTS = [
    *([SortKey(param, kind, descending)] for (param, kind), descending in product(KEYS.items(), (False, True))),
    [SortKey("when", "date"), SortKey("code", "token")],
    [SortKey("code", "token", True), SortKey("when", "date"), SortKey("amount", "quantity"), SortKey("name", "string")],
]
CALLERS: dict[str, tuple[Filter, Visibility]] = {
    "one patient": (EVERYTHING, visibility(clause("p1"))),
    "several patients": (EVERYTHING, visibility(clause("p1", "p2"))),
    "by two rights": (EVERYTHING, visibility(clause("p1"), clause("p1", classes={0}))),
    "a rare code of anyone": (Has("code", TokenIs("s", "rare")), visibility(clause())),
}


def _entries(day: int, code: str) -> tuple[Entry, ...]:
    return (
        Entry("code", "token", ("s", code)),
        Entry("subject", "reference", (f"Patient/x{day}",)),
        Entry("name", "string", (f"n{day}", f"N{day}")),
        Entry("when", "date", (day, day + 1)),
        Entry("_lastUpdated", "date", (day, day + 1)),
        Entry("amount", "quantity", (float(day), "", "", "")),
    )


def _batches(others: int) -> Iterator[list[IndexedRow]]:
    """Yield rows of p1 in the middle of the values of others, so that no order of values meets them first."""
    yield [record(f"own{n}", "p1", entries=_entries(10_000_000 + n, "rare")) for n in range(OWN)]
    for start in range(0, others, 1000):
        numbers = range(start, min(start + 1000, others))
        yield [record(f"r{n}", f"q{n % 97}", entries=_entries(n + 20_000_000 * (n % 2), f"c{n}")) for n in numbers]


def _ask(where: Filter, seen: Visibility, sort: list[SortKey]) -> Callable[[Snapshot], Awaitable[list[str]]]:
    async def ask(snapshot: Snapshot) -> list[str]:
        page = await snapshot.find(OBS, where, seen, sort=tuple(sort), limit=OWN // 2)
        assert page.next is not None
        second = await snapshot.find(OBS, where, seen, sort=tuple(sort), limit=OWN, after=page.next)
        return [row.id for row in (*page.rows, *second.rows)]

    return ask


def _steps(path: Path, others: int) -> dict[str, int]:
    """Return the steps of SQLite's virtual machine of two sorted pages, by caller and sort, in a store with so many rows of others."""

    async def run() -> dict[str, int]:
        store = SqliteStore(path)
        for batch in _batches(others):
            await put(store, *batch)
        counted: dict[str, int] = {}
        for (name, (where, seen)), sort in product(CALLERS.items(), SORTS):
            ask = _ask(where, seen, sort)
            async with store.snapshot() as snapshot:
                snapshot.inline_seconds = inf  # a read that goes on in a thread would be counted twice
                steps: list[int] = []
                await ask(snapshot)
                snapshot.connection.trace_v2(
                    apsw.SQLITE_TRACE_PROFILE,
                    lambda event, steps=steps: steps.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]),  # type: ignore[misc]
                )
                found = await ask(snapshot)
                snapshot.connection.trace_v2(0, None)
                assert sorted(found) == sorted(f"own{n}" for n in range(OWN))
                text = ",".join(f"{'-' if key.descending else ''}{key.param}" for key in sort)
                counted[f"{name}: {text}"] = sum(steps)
        await store.close()
        return counted

    return asyncio.run(run())


def _added(path: Path, few: int, many: int) -> dict[str, int]:
    (path / "few").mkdir()
    (path / "many").mkdir()
    before, after = _steps(path / "few/x.db", few), _steps(path / "many/x.db", many)
    assert len(before) == len(CALLERS) * len(SORTS) and min(before.values()) > OWN
    return {name: after[name] - before[name] for name in before if abs(after[name] - before[name]) > _PROBES}


def test_keys_are_of_every_kind_that_r4_can_sort_by() -> None:
    everything = ((type, code, found) for type in definitions.types() for code, found in parameters(type).items())
    keys = [query.parse((type,), [("_sort", code)], strict=False, now=0, base="").sort for type, code, _ in everything]
    assert {key.kind for sort in keys for key in sort} == set(KEYS.values())


def test_rows_of_others_add_no_steps_to_any_sort(tmp_path: Path) -> None:
    assert _added(tmp_path, 500, 3000) == {}


def test_step_count_shows_a_sort_that_walks_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to itself, SQLite finds the least value of a row by walking all values of the parameter in order."""
    monkeypatch.setattr(sorting, "of_row", lambda table, alias: f"{table} {alias}")
    assert any(name.endswith(": when") and steps > 1000 for name, steps in _added(tmp_path, 500, 3000).items())


@pytest.mark.slow
def test_sorts_cost_the_same_in_a_store_of_100000_rows(tmp_path: Path) -> None:
    assert _added(tmp_path, 500, 100_000) == {}
