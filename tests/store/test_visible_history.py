"""Pages of a history, and versions by number, are those of reading all versions; they cost what is asked for."""

from __future__ import annotations

import asyncio
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fhir_server.access import version_numbers, visible_history
from fhir_server.access.version_numbers import Sight
from fhir_server.search.filters import EVERYTHING, Filter, Has, TokenIs
from fhir_server.store import Row, Snapshot, Store, VersionHistory, version_history
from fhir_server.store.sqlite import SqliteStore
from tests.properties.version_oracle import CLASSES, TARGETS
from tests.store.conftest import RunScenario
from tests.store.histories import CALLER, Caller, alike, fill_histories, visible_history_of
from tests.store.samples import OBS, clause, put, visibility


def _callers(random: Random) -> list[Caller]:
    """Some with conditions, some of one patient, some who wait for releases, and one who counts what is stored."""
    classes = [frozenset(some) for size in range(1, 6) for some in combinations(CLASSES, size)]
    callers: list[Caller] = [(visibility(clause(classes=CLASSES, released=False)), None, frozenset())]
    for _ in range(12):
        admitted, targets = random.choice(classes), frozenset(random.sample(TARGETS, random.randint(0, 3)))
        where: Filter = random.choice((EVERYTHING, EVERYTHING, Has("code", TokenIs("s", "x"))))
        released, now = random.random() < 0.5, random.choice((45, 70, 90))
        of = random.choice(((), ("p0",)))
        seen = visibility(clause(*of, classes=admitted, released=released, where=where), now=now)
        callers.append((seen, Sight(admitted, frozenset(), now if released else None, frozenset(of) if of else None), targets))
    return callers


async def _all(snapshot: Snapshot, id: str, caller: Caller) -> dict[int, Row]:
    """By number, the row that has it first, newest first: by reading all versions since the resource belongs to the patients seen."""
    seen, sight, targets = caller
    numbered: dict[int, Row] = {}
    rows = await snapshot.versions(OBS, id, seen)
    history = rows[-1].history if rows else None
    first = history.first_of(sight.patients) if history and sight else 1
    for row in [row for row in rows if row.version >= first]:
        number = row.version
        if sight is not None:
            whole = sight._replace(shown=targets)
            number = version_numbers.count(row.history, whole, is_visible=True).number if row.history else 1
        numbered.setdefault(number, row)
    return dict(reversed(numbered.items()))


def test_pages_and_versions_are_those_of_reading_all(run: RunScenario) -> None:
    async def scenario(store: Store) -> int:
        random, compared = Random(1), 0
        await fill_histories(store)
        async with store.snapshot() as snapshot:
            for id in [f"h{seed}" for seed in range(12)]:
                for caller in _callers(random):
                    expected = await _all(snapshot, id, caller)
                    compared += len(expected)
                    for limit in (1, 3, 50):
                        assert await _walked(snapshot, id, caller, limit, len(expected)) == list(expected.values())
                    for number in range(15):
                        assert await visible_history_of(snapshot, id, caller).find(number) == expected.get(number)
        return compared

    assert run(scenario) > 120


async def _walked(snapshot: Snapshot, id: str, caller: Caller, limit: int, total: int) -> list[Row]:
    """All rows of the pages; each has the right total, or none if it would have to be counted."""
    rows: list[Row] = []
    before: int | None = None
    while (page := await visible_history_of(snapshot, id, caller).page(limit, before)) is not None:
        assert page.total in (total, None)
        assert page.total == total or caller[1] is not None
        assert len(page.rows) <= limit
        rows += page.rows
        if page.older is None:
            break
        before = page.last
    return rows


class _Counted:
    """Counts statements of a snapshot, and the histories that are decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements = self.decoded = 0
        exact = version_history.decode_history

        def decode(encoded: bytes) -> VersionHistory:
            self.decoded += 1
            return exact(encoded)

        monkeypatch.setattr(version_history, "decode_history", decode)

    def watch(self, snapshot: Any) -> None:
        exact = snapshot.rows
        snapshot.inline_seconds = 3600.0  # a read that must go on in a thread would be counted twice

        def rows(sql: str, args: Any) -> Any:
            self.statements += 1
            return exact(sql, args)

        snapshot.rows = rows


def _costs(path: Path, versions: list[Any], ask: Any) -> tuple[int, int, Any]:
    """(statements, histories decoded, result) of what a caller asks of a row with these versions."""

    async def run() -> tuple[int, int, Any]:
        store = SqliteStore(path)
        await put(store, *versions)
        with pytest.MonkeyPatch.context() as patch:
            counted = _Counted(patch)
            async with store.snapshot() as snapshot:
                counted.watch(snapshot)
                result = await ask(visible_history_of(snapshot, "a", CALLER))
        await store.close()
        return counted.statements, counted.decoded, result

    return asyncio.run(run())


def _versions_of(page: Any) -> list[int]:
    return [row.version for row in page.rows]


@pytest.mark.parametrize("asked", ["page", "first version", "middle version"])
def test_thousands_of_versions_cost_what_a_hundred_cost(tmp_path: Path, asked: str) -> None:
    asks = {
        "page": lambda history: history.page(20),
        "first version": lambda history: history.find(1),
        "middle version": lambda history: history.find(50),
    }
    few = _costs(tmp_path / "few.db", alike(100), asks[asked])
    many = _costs(tmp_path / "many.db", alike(2000), asks[asked])
    assert many[:2] == few[:2]
    assert many[0] < 20 and many[1] < 30
    if asked == "page":
        assert _versions_of(many[2]) == list(range(2000, 1980, -1)) and many[2].total is None
    else:
        assert many[2].version == few[2].version


def test_hidden_versions_cost_no_statement(tmp_path: Path) -> None:
    hidden = frozenset(version for version in range(2, 1000) if version % 50)
    none = _costs(tmp_path / "none.db", alike(21), lambda history: history.find(10))
    many = _costs(tmp_path / "many.db", alike(1001, hidden), lambda history: history.find(10))
    assert none[0] == many[0] and none[2].version == 10 and many[2].version == 450
    first = _costs(tmp_path / "page.db", alike(30), lambda history: history.page(5))
    other = _costs(tmp_path / "other.db", alike(50, frozenset(range(30, 50))), lambda history: history.page(5))
    assert first[:2] == other[:2]
    assert _versions_of(other[2]) == [50, 29, 28, 27, 26]


def test_reading_all_digests_is_found_by_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visible_history, "_ROUNDS", 40)
    cost = _costs(tmp_path / "x.db", alike(100), lambda history: history.find(50))
    assert cost[0] > 20


def test_a_later_version_is_stored_in_no_more_bytes(tmp_path: Path) -> None:
    async def run() -> list[int]:
        store = SqliteStore(tmp_path / "x.db")
        await put(store, *alike(2000))
        sizes = [
            store.rows("SELECT length(extra) + length(body) + length(entries) FROM past WHERE version = ?", (version,))[0][0]
            for version in (500, 1000, 1999)
        ]
        await store.close()
        return sizes

    half, twice, last = asyncio.run(run())
    assert max(half, twice, last) - min(half, twice, last) < 8 and last < 400
