"""A hidden row costs nothing: SQLite takes as many steps with 2,000 hidden rows as with none, for every shape of search."""

from __future__ import annotations

import asyncio
from math import inf
from pathlib import Path

import apsw
import pytest

from fhir_server.store.sqlite import SqliteStore
from fhir_server.store.sqlite.interning import Names
from tests.store.hidden_rows import HIDDEN, SHAPES, batches
from tests.store.samples import put

_PROBES = 150  # steps that the look-up of the bands, and seeks past other bands, may add


def _steps(path: Path, hidden: int) -> dict[str, tuple[int, object]]:
    """Return for each shape the steps of SQLite's virtual machine, and the answer, in a store with so many hidden rows."""

    async def run() -> dict[str, tuple[int, object]]:
        store = SqliteStore(path)
        for batch in batches(hidden):
            await put(store, *batch)
        counted: dict[str, tuple[int, object]] = {}
        for name, ask in SHAPES.items():
            async with store.snapshot() as snapshot:
                snapshot.inline_seconds = inf  # a read that goes on in a thread would be counted twice
                await ask(snapshot)
                steps: list[int] = []

                def add(event: dict[str, dict[str, int]], steps: list[int] = steps) -> None:
                    steps.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])

                snapshot.connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, add)
                answer = await ask(snapshot)
                snapshot.connection.trace_v2(0, None)
                counted[name] = sum(steps), answer
        await store.close()
        return counted

    return asyncio.run(run())


@pytest.fixture(scope="module")
def without_hidden_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, object]]:
    return _steps(tmp_path_factory.mktemp("none") / "x.db", 0)


def test_hidden_rows_add_no_steps_to_any_search(tmp_path: Path, without_hidden_rows: dict[str, tuple[int, object]]) -> None:
    counted = _steps(tmp_path / "x.db", HIDDEN)
    for name, (steps, answer) in without_hidden_rows.items():
        assert counted[name][1] == answer, name
        assert steps > 0, name
    added = {name: counted[name][0] - steps for name, (steps, _) in without_hidden_rows.items()}
    assert {name: number for name, number in added.items() if abs(number) > _PROBES} == {}


def test_step_count_shows_search_that_reads_hidden_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_hidden_rows: dict[str, tuple[int, object]]
) -> None:
    admitted = Names.admitted_bands
    monkeypatch.setattr(Names, "admitted_bands", lambda self, type, classes: admitted(self, type, frozenset(range(9))))
    counted = _steps(tmp_path / "x.db", HIDDEN)
    for name in ("first page", "code", "date range", "count", "sorted by date"):
        assert counted[name][0] > without_hidden_rows[name][0] + _PROBES, name
