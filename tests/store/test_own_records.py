"""What SQLite reads for one person's grants, sessions and codes does not grow with other people's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

from fhir_server.store.sqlite import SqliteStore
from fhir_server.store.sqlite.key_value import SqliteKeyValues
from tests.store.own_records import ASKED, OTHERS, plant

_SEEKS = 40  # steps that a deeper index may add


def _steps(path: Path, others: int) -> dict[str, int]:
    """Return the steps of SQLite's virtual machine for each question, with so many other people."""

    async def run() -> dict[str, int]:
        store = SqliteStore(path)
        await plant(store, others)
        steps: list[int] = []

        def add(event: dict[str, dict[str, int]]) -> None:
            steps.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])

        reading = store.borrow_snapshot()  # the next reads are given this one again
        reading.connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, add)
        store.return_snapshot(reading)
        counted = {}
        for name, ask in ASKED.items():
            steps.clear()
            assert await ask(store), name
            counted[name] = sum(steps)
        await store.close()
        return counted

    return asyncio.run(run())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return _steps(tmp_path_factory.mktemp("alone") / "x.db", 0)


def test_other_peoples_records_add_no_steps(tmp_path: Path, alone: dict[str, int]) -> None:
    assert all(alone.values())
    counted = _steps(tmp_path / "x.db", OTHERS)
    assert {name: steps for name, steps in counted.items() if steps > alone[name] + _SEEKS} == {}


def test_counted_steps_show_a_listing_of_everybody(tmp_path: Path, alone: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    async def of_all(values: SqliteKeyValues, kind: str, family: str, now: int) -> tuple[tuple[str, bytes], ...]:
        sql = "SELECT key, value FROM secret WHERE kind = ? AND +family = ? AND expires > ?"
        return tuple((key, value) for key, value in values._rows(sql, (kind, family, now)))

    monkeypatch.setattr(SqliteKeyValues, "list_family", of_all)
    counted = _steps(tmp_path / "x.db", 1_000)
    assert {name for name, steps in counted.items() if steps > alone[name] + _SEEKS} == {"sessions", "recovery codes"}
