"""The history of a type is what the caller sees in the histories of all its resources, in the order of time, on every store."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from fhir_server.access import version_numbers
from fhir_server.access.version_numbers import Sight
from fhir_server.access.visible_changes import Entry, EntryKey, HistoryPeriod, VisibleChanges
from fhir_server.search.filters import IdIs
from fhir_server.store import Row, Snapshot, Store
from fhir_server.store.sqlite import SqliteStore, long_reads
from tests.store.conftest import RunScenario
from tests.store.histories import CALLER, Caller, fill_histories, visible_history_of
from tests.store.samples import OBS, clause, in_job, put, record, relabel, visibility
from tests.store.stores import quick_share
from tests.store.test_purged_history import IDS, _purge
from tests.store.test_visible_history import _callers


def _changes(snapshot: Snapshot, caller: Caller) -> VisibleChanges:
    return VisibleChanges(snapshot, {OBS: caller[0]}, lambda _, id: visible_history_of(snapshot, id, caller))


def _time(row: Row, number: int, caller: Caller) -> int:
    _, sight, targets = caller
    if sight is None or row.history is None:
        return row.updated
    counted = version_numbers.count(row.history, sight._replace(shown=targets), is_visible=True)
    assert counted.number == number
    return counted.updated


async def _merged(snapshot: Snapshot, caller: Caller, ids: list[str] = IDS) -> list[tuple[EntryKey, Row, Row | None]]:
    """What the histories of all resources hold, newest first, each with the version before it."""
    found: list[tuple[EntryKey, Row, Row | None]] = []
    for id in ids:
        page = await visible_history_of(snapshot, id, caller).page(1000)
        rows = page.rows if page else []
        numbers = [_number(row, caller) for row in rows]
        for number, row, older in zip(numbers, rows, [*rows[1:], None], strict=False):
            found.append((EntryKey(_time(row, number, caller), OBS, id, number), row, older))
    return sorted(found, key=lambda one: one[0], reverse=True)


def _number(row: Row, caller: Caller) -> int:
    _, sight, targets = caller
    if sight is None or row.history is None:
        return row.version if sight is None else 1
    return version_numbers.count(row.history, sight._replace(shown=targets), is_visible=True).number


async def _walked(snapshot: Snapshot, caller: Caller, limit: int, *, ascending: bool = False) -> list[Entry]:
    """The entries of all pages, each of which is full but the last."""
    found: list[Entry] = []
    after: EntryKey | None = None
    while page := await _changes(snapshot, caller).page(limit, HistoryPeriod(ascending=ascending), after):
        found += page
        after = page[-1].key
        if len(page) < limit:
            break
    return found


async def _compare(store: Store, callers: list[Caller]) -> int:
    compared = 0
    for caller in callers:
        async with store.snapshot() as snapshot:
            expected = await _merged(snapshot, caller)
            compared += len(expected)
            for limit in (2, 50):
                assert [tuple(entry) for entry in await _walked(snapshot, caller, limit)] == expected
            backwards = [entry.key for entry in await _walked(snapshot, caller, 4, ascending=True)]
            assert backwards == [key for key, *_ in reversed(expected)]
    return compared


@pytest.mark.parametrize("seed", [1, 2])
def test_entries_are_those_of_all_histories_newest_first(run: RunScenario, seed: int) -> None:
    async def scenario(store: Store) -> int:
        await fill_histories(store)
        return await _compare(store, _callers(Random(seed)))

    assert run(scenario) > 100


@pytest.mark.parametrize(("run", "horizon"), quick_share([4_500, 10_000], 4_500), indirect=["run"])
def test_entries_are_those_of_all_histories_after_a_purge(run: RunScenario, horizon: int) -> None:
    async def scenario(store: Store) -> int:
        await fill_histories(store, (5, 12, 25), 1)
        assert await _purge(store, horizon) > 10
        compared = await _compare(store, _callers(Random(horizon))[:6])
        async with store.snapshot() as snapshot:
            assert await snapshot.history_horizon() == horizon
        return compared

    assert run(scenario) > 40


def test_relabeled_version_leaves_the_histories_of_those_who_no_longer_see_it(run: RunScenario) -> None:
    async def keys(store: Store, classes: set[int]) -> list[str]:
        caller: Caller = (visibility(clause("p0", classes=classes)), Sight(frozenset(classes), frozenset(), 100), frozenset())
        async with store.snapshot() as snapshot:
            return [entry.key.id for entry in await _walked(snapshot, caller, 1)]

    async def scenario(store: Store) -> None:
        await put(store, record("a", "p0"), record("b", "p0", "p1"))
        assert await keys(store, {0, 1}) == ["b", "a"]
        await relabel(store, record("a", "p0", class_id=2))
        assert await keys(store, {0, 1}) == ["b"] and await keys(store, {2}) == ["a"]
        await relabel(store, record("b", "p1"))
        assert await keys(store, {0, 1}) == []
        await in_job(store, "erase_unfiltered", OBS, "a")
        assert await keys(store, {2}) == []

    run(scenario)


def test_history_of_single_resource_is_found_by_its_id(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await fill_histories(store)
        seen = CALLER[0]
        async with store.snapshot() as snapshot:
            for id in IDS:
                narrowed = {OBS: seen.limited_to(IdIs(frozenset({id})))}
                of_one = VisibleChanges(snapshot, narrowed, lambda _, id: visible_history_of(snapshot, id, CALLER))
                found = [tuple(entry) for entry in await of_one.page(50, HistoryPeriod())]
                assert found == await _merged(snapshot, CALLER, [id])

    run(scenario)


def test_versions_of_a_single_resource_are_read_alone_after_a_purge(run: RunScenario) -> None:
    async def scenario(store: Store) -> set[str]:
        await fill_histories(store, (5, 12, 25), 1)
        await _purge(store, 10_000)
        found: set[str] = set()
        async with store.snapshot() as snapshot:
            for seen in (CALLER[0], visibility(clause("p0")), visibility(clause())):
                for id in IDS:
                    narrowed = {OBS: seen.limited_to(IdIs(frozenset({id})))}
                    changes = await snapshot.changes_unfiltered(narrowed, 1000, HistoryPeriod().range(None))
                    assert {change.key.id for change in changes} <= {id}
                    found |= {id for change in changes if change.stamp is None}
        return found

    assert len(run(scenario)) > 3


def test_page_costs_the_same_whatever_is_hidden_and_however_much_there_is(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements, and rows that they return: of a store with ten times as many rows, and with hidden ones."""
    import asyncio
    from pathlib import Path

    monkeypatch.setattr(long_reads, "_INLINE", inf)  # on a busy machine a read is begun again in a thread, which would be counted

    async def cost(visible: int, hidden: int) -> tuple[int, int]:
        folder = Path(str(tmp_path)) / f"{visible}-{hidden}"
        folder.mkdir()
        store = SqliteStore(folder / "x.db")
        rows = [record(f"v{number}", f"p{number % 3}") for number in range(visible)]
        await put(store, *rows, *[record(f"h{number}", f"p{number % 3}", class_id=2) for number in range(hidden)])
        statements = returned = 0
        async with store.snapshot() as snapshot:
            exact = snapshot.rows

            def counted(sql: str, args: tuple[object, ...]) -> list[tuple[object, ...]]:
                nonlocal statements, returned
                found = exact(sql, args)
                statements, returned = statements + 1, returned + len(found)
                return found

            snapshot.rows = counted  # type: ignore[method-assign]
            for seen in (visibility(clause("p1")), visibility(clause())):
                caller: Caller = (seen, Sight(frozenset({0, 1}), frozenset(), 100), frozenset())
                assert len(await _changes(snapshot, caller).page(5, HistoryPeriod())) == 5
        await store.close()
        return statements, returned

    few = asyncio.run(cost(90, 0))
    assert asyncio.run(cost(900, 0)) == few
    assert asyncio.run(cost(90, 900)) == few
