"""After a purge a caller's history is what it was, down to the horizon: it does not depend on which versions are stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest

from fhir_server.access import version_numbers
from fhir_server.access.visible_history import VisibleHistory
from fhir_server.clock import MAX_INSTANT
from fhir_server.store import Row, Snapshot, Store, VersionDigest, VersionHistory, open_store
from fhir_server.store.version_history import HORIZON
from fhir_server.store.version_purge import Purge, StoredVersion, choose
from fhir_server.store.version_summary import following
from tests.store.conftest import RunScenario
from tests.store.histories import CALLER, Caller, fill_histories, visible_history_of
from tests.store.samples import OBS, put, record
from tests.store.stores import quick_share
from tests.store.test_visible_history import _all, _callers

IDS = [f"h{seed}" for seed in range(12)]


async def _purge(store: Store, before: int) -> int:
    await store.key_values.put(HORIZON, "", str(before).encode(), MAX_INSTANT)

    async def job(transaction: Any) -> list[int]:
        return [await transaction.purge_versions_unfiltered(OBS, id, before) for id in IDS]

    return sum(await store.write(job))


def _seen(row: Row, caller: Caller) -> tuple[int, int]:
    """The number and time of a version for a caller."""
    _, sight, targets = caller
    if sight is None or row.history is None:
        return row.version if sight is None else 1, row.updated
    counted = version_numbers.count(row.history, sight._replace(shown=targets), is_visible=True)
    return counted.number, counted.updated


async def _pages(snapshot: Snapshot, id: str, caller: Caller, limit: int) -> tuple[dict[int, Row], int | None]:
    """By number what the pages hold, and the total that the first one states."""
    rows: dict[int, Row] = {}
    before: int | None = None
    total: int | None = None
    while (page := await visible_history_of(snapshot, id, caller).page(limit, before)) is not None:
        total = page.total if before is None else total
        rows |= {_seen(row, caller)[0]: row for row in page.rows}
        if page.older is None:
            break
        before = page.last
    return rows, total


async def _compare(store: Store, horizon: int) -> tuple[int, int, int]:
    """(versions removed, versions that callers lost, versions that they still have)."""
    random = Random(horizon)
    callers = _callers(random)
    await fill_histories(store, (5, 12, 25), 1)
    async with store.snapshot() as snapshot:
        expected = [(id, caller, await _all(snapshot, id, caller)) for id in IDS for caller in callers]
    removed, lost, kept = await _purge(store, horizon), 0, 0
    async with store.snapshot() as snapshot:
        for id, caller, rows in expected:
            newest = max(rows, default=0)
            left = {number: row for number, row in rows.items() if number == newest or _seen(row, caller)[1] >= horizon}
            lost, kept = lost + len(rows) - len(left), kept + len(left)
            for limit in (1, 3, 50):
                found, total = await _pages(snapshot, id, caller, limit)
                assert [*found] == [*left] and total in (len(left), None)
                assert [_seen(row, caller) for row in found.values()] == [_seen(row, caller) for row in left.values()]
                assert all(found[number] == row for number, row in left.items() if number != newest)
            for number in range(15):
                row = await visible_history_of(snapshot, id, caller).find(number)
                assert (row is not None) == (number in left)
                assert row is None or _seen(row, caller) == _seen(left[number], caller)
    return removed, lost, kept


@pytest.mark.parametrize(("run", "horizon"), quick_share([3500, 7500, 15_500], 7500), indirect=["run"])
def test_history_after_a_purge_is_what_it_was_down_to_the_horizon(run: RunScenario, horizon: int) -> None:
    removed, lost, kept = run(lambda store: _compare(store, horizon))
    assert removed > 0 and lost > 0 and kept > 50


def _shows_what_is_stored(patch: pytest.MonkeyPatch) -> None:
    async def kept(history: Any, beginnings: Any, top: Any) -> Any:
        return beginnings

    patch.setattr(VisibleHistory, "_kept", kept)


def _loses_the_newest(patch: pytest.MonkeyPatch) -> None:
    exact = VisibleHistory._read

    async def read(history: Any, beginnings: Any, newest: Any, top: Any) -> Any:
        history._horizon, horizon = 0, history._horizon
        try:
            return await exact(history, beginnings, newest, top)
        finally:
            history._horizon = horizon

    patch.setattr(VisibleHistory, "_read", read)


def _goes_by_the_time_of_the_stored_version(patch: pytest.MonkeyPatch) -> None:
    exact = VisibleHistory._read

    async def read(history: Any, beginnings: Any, newest: Any, top: Any) -> Any:
        rows = await exact(history, beginnings, newest, top)
        return {number: row for number, row in rows.items() if row.updated >= history._horizon}

    patch.setattr(VisibleHistory, "_read", read)


FAULTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    _shows_what_is_stored,
    _goes_by_the_time_of_the_stored_version,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_planted_fault_in_purged_histories_is_detected(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        for horizon in range(2500, 20_000, 2000):
            asyncio.run(_compare(open_store("memory:"), horizon))


async def _of_one_number(store: Store) -> list[int]:
    """The stored versions in the history of a row whose 60 versions are alike for the caller, when all but the last are purged."""
    history: VersionHistory | None = None
    for number in range(1, 61):
        history = following(history, VersionDigest(number, number * 10, 0, 0, ((0, "the same"),)))
        indexed = record("h0", "p1", version=number)
        await put(store, msgspec.structs.replace(indexed, row=msgspec.structs.replace(indexed.row, updated=number * 10, history=history)))
    assert await _purge(store, 595) == 59
    async with store.snapshot() as snapshot:
        page = await visible_history_of(snapshot, "h0", CALLER).page(10)
        found = await visible_history_of(snapshot, "h0", CALLER).find(1)
    assert page is not None and found is not None
    return [row.version for row in (*page.rows, found)]


def test_newest_version_is_shown_though_its_number_began_before(run: RunScenario) -> None:
    assert run(_of_one_number) == [60, 60]


def test_planted_loss_of_the_newest_version_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    _loses_the_newest(monkeypatch)
    with pytest.raises(AssertionError):
        assert asyncio.run(_of_one_number(open_store("memory:"))) == [60, 60]


def _version(number: int, updated: int, class_id: int = 0, *, deleted: bool = False, loses: bool = False) -> StoredVersion[int]:
    return StoredVersion(number, updated, class_id, 0, ("p",), deleted, loses, 10 * number)


def test_newest_version_of_each_class_takes_over_the_place_of_the_first() -> None:
    versions = [_version(1, 1), _version(2, 2, 1), _version(3, 3), _version(4, 4, 1), _version(5, 5, 2), _version(6, 6, 2)]
    assert choose(versions, 100) == Purge([1, 2, 5], {3: 10, 4: 20, 6: 50})
    assert choose(versions, 3) == Purge([1, 2], {3: 10, 4: 20})
    assert choose(versions, 1) == Purge([], {})


def test_what_labels_rest_on_is_kept() -> None:
    ended = [_version(1, 1), _version(2, 2), _version(3, 3, deleted=True)]
    assert choose(ended, 100) == Purge([1], {2: 10})
    assert choose([*ended, _version(4, 4)], 100) == Purge([1, 2, 3], {4: 10})
    lost = [_version(1, 1), _version(2, 2, loses=True), _version(3, 3), _version(4, 4)]
    assert choose(lost, 100) == Purge([1, 3], {2: 10, 4: 30})
    moved = [lost[0]._replace(patients=("other",)), *lost[1:]]
    assert choose(moved, 100) == Purge([], {})
