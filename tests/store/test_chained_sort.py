"""A chained sort key leads, by references that are visible, to rows that its own Visibility admits, in every store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fhir_server.search import match
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.rows import SortKey, SortStep
from fhir_server.search.visibility import Visibility
from fhir_server.store import Store
from tests.store.conftest import RunScenario
from tests.store.samples import NOW, OBS, clause, put, record, reference, token, visibility
from tests.store.stores import empty_store

P1 = visibility(clause("p1"))
ROWS = (
    record("none", "p1"),
    record("last", "p1", entries=[reference("of", "Encounter/seen")]),
    record("first", "p1", entries=[reference("of", "Encounter/before")]),
    record("by-hidden-reference", "p1", entries=[reference("of", "Encounter/before", class_id=2)]),
    record("to-class", "p1", entries=[reference("of", "Encounter/classed")]),
    record("to-held", "p1", entries=[reference("of", "Encounter/held")]),
    record("to-other", "p1", entries=[reference("of", "Encounter/other")]),
    record("to-inner", "p1", entries=[reference("of", "Encounter/inner")]),
    record("to-type", "p1", entries=[reference("of", "Procedure/seen")]),
    record("seen", "p1", type="Encounter", entries=[token("code", "m")]),
    record("before", "p1", type="Encounter", entries=[token("code", "b")]),
    record("classed", "p1", type="Encounter", class_id=2, entries=[token("code", "a")]),
    record("held", "p1", type="Encounter", release_at=NOW + 1, entries=[token("code", "a")]),
    record("other", "p2", type="Encounter", entries=[token("code", "a")]),
    record("inner", "p1", type="Encounter", entries=[token("code", "a", class_id=2)]),
    record("seen", "p1", type="Procedure", entries=[token("code", "a")]),
)
VALUED = ["first", "last", "none", "by-hidden-reference", "to-class", "to-held", "to-other", "to-inner", "to-type"]


def by_code(seen: Visibility | None = P1) -> tuple[SortKey, ...]:
    return (SortKey("code", "token", False, (SortStep("of", "Encounter", SortKey("code", "token"), seen),)),)


async def _ids(store: Store, sort: tuple[SortKey, ...]) -> list[str]:
    await put(store, *ROWS)
    async with store.snapshot() as snapshot:
        return [row.id for row in (await snapshot.find(OBS, EVERYTHING, P1, sort=sort, limit=50)).rows]


def test_hidden_reference_row_and_value_are_no_sort_values(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        assert await _ids(store, by_code()) == VALUED

    run(scenario)


@pytest.mark.parametrize("seen", [None, Visibility()])
def test_step_without_a_visibility_leads_nowhere(run: RunScenario, seen: Visibility | None) -> None:
    async def scenario(store: Store) -> None:
        assert await _ids(store, by_code(seen)) == [row.row.id for row in ROWS if row.row.type == OBS]

    run(scenario)


def test_key_that_follows_hidden_references_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = match._values_through
    everything = frozenset(range(4))
    monkeypatch.setattr(match, "_values_through", lambda step, row, _, others: exact(step, row, everything, others))
    found = asyncio.run(_ids(empty_store("memory", tmp_path), by_code()))
    assert found != VALUED and found[:3] == ["first", "by-hidden-reference", "last"]
