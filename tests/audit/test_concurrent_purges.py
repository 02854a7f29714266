"""The audit log is purged while servers write to it, and by two commands at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fhir_server.audit import AuditLog
from fhir_server.audit import purge as purging
from fhir_server.audit.purge import plan, purge
from fhir_server.audit.verification import Verified, verify
from fhir_server.clock import SECOND
from fhir_server.errors import Problem
from fhir_server.store import Store
from tests.audit.test_chain import KEYS, on_each_store
from tests.audit.test_purge import EVENT, purged, users, written
from tests.store.stores import SCHEMES


@pytest.mark.parametrize("scheme", SCHEMES)
def test_servers_write_while_the_log_is_purged(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "_STEP", 5)

    async def scenario(store: Store) -> tuple[Verified, list[str]]:
        await written(store, 0, 60)
        await asyncio.gather(purged(store, 50), written(store, 60, 90), written(store, 90, 120))
        return await verify(store, KEYS), await users(store)

    result, left = on_each_store(scheme, tmp_path, scenario)
    assert (result.findings, result.purged) == ([], 50)
    assert sorted(left) == sorted(f"user-{number}" for number in range(50, 120))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_purges_at_once_remove_each_line_once(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "_STEP", 3)

    async def scenario(store: Store) -> tuple[list[Any], Verified]:
        await written(store, 0, 30)
        done = await asyncio.gather(purged(store, 20), purged(store, 25), return_exceptions=True)
        return done, await verify(store, KEYS)

    done, result = on_each_store(scheme, tmp_path, scenario)
    assert all(isinstance(one, int) or (isinstance(one, Problem) and one.kind == "conflict") for one in done), done
    assert result.findings == [] and result.purged in (20, 25)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_purge_between_the_steps_of_another_ends_that_one(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their turns are, one of them says how many lines are gone."""
    monkeypatch.setattr(purging, "_STEP", 3)

    async def scenario(store: Store) -> tuple[Any, Verified]:
        await written(store, 0, 30)
        log, between = AuditLog(store, KEYS), []
        await log.prepare()
        found = await plan(store, log, 20 * SECOND, [])
        record = log.record_purge

        async def recorded(*given: Any) -> None:
            await record(*given)
            if not between:
                between.append(await purged(store, 25))

        monkeypatch.setattr(log, "record_purge", recorded)
        try:
            await purge(store, log, found, EVENT, lambda: 1000 * SECOND)
        except Problem as problem:
            return problem.kind, await verify(store, KEYS)
        return None, await verify(store, KEYS)

    ended, result = on_each_store(scheme, tmp_path, scenario)
    assert (ended, result.findings, result.purged) == ("conflict", [], 25)
