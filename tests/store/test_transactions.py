"""Transactions: class ids, permission epochs, prefetched rows, and jobs that are stored completely or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from fhir_server.search.filters import EVERYTHING, Has, TokenIs
from fhir_server.store import PermissionEpoch, Store
from tests.store.conftest import RunScenario
from tests.store.samples import (
    ALL,
    ANYONE,
    OBS,
    clause,
    drop,
    found,
    in_job,
    put,
    record,
    token,
    visibility,
)


def test_class_ids_count_from_zero_in_insertion_order(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        async def job(transaction: Any) -> list[int]:
            return [await transaction.intern_class(key) for key in ("lab||", "visit||", "lab||", "x|HIV|")]

        async with store.snapshot() as snapshot:
            assert await snapshot.classes() == ()
        assert await store.write(job) == [0, 1, 0, 2]
        assert await in_job(store, "intern_class", "y") == 3
        async with store.snapshot() as snapshot:
            assert await snapshot.classes() == ("lab||", "visit||", "x|HIV|", "y")

    run(scenario)


def test_epoch_advances_only_on_request_or_with_a_new_class(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        async def epoch(patient: str | None) -> PermissionEpoch:
            async with store.snapshot() as snapshot:
                return await snapshot.permission_epoch(patient)

        assert await epoch("p1") == PermissionEpoch(0, 0, 0)
        await in_job(store, "advance_epoch", "p1")
        await in_job(store, "advance_epoch", "p1")
        await in_job(store, "advance_epoch", None)
        assert await epoch("p1") == PermissionEpoch(1, 2, 0)
        assert await epoch("p2") == PermissionEpoch(1, 0, 0)
        assert await epoch(None) == PermissionEpoch(1, 0, 0)
        await in_job(store, "intern_class", "a")
        await in_job(store, "intern_class", "a")
        await put(store, record("a", "p1"))
        assert await epoch("p1") == PermissionEpoch(1, 2, 1)

    run(scenario)


def test_failed_transaction_stores_nothing_and_others_succeed(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        async def good(number: int) -> None:
            await put(store, record(f"good{number}", f"p{number}", entries=[token(f"code{number}", "x", f"system{number}")]))

        async def bad(number: int) -> None:
            async def job(transaction: Any) -> None:
                await transaction.intern_class(f"class{number}")
                assert f"class{number}" in await transaction.classes()
                await transaction.advance_epoch("p1")
                await transaction.put(record(f"bad{number}", f"q{number}", entries=[token(f"code{number}", "x", f"system{number}")]))
                assert await transaction.count(OBS, Has(f"code{number}", TokenIs(None, "x")), ANYONE) >= 1
                raise RuntimeError(str(number))

            with pytest.raises(RuntimeError, match=f"^{number}$"):
                await store.write(job)

        await asyncio.gather(*(attempt(number) for number in range(40) for attempt in (bad, good)))
        assert sorted(await found(store, EVERYTHING)) == sorted(f"good{number}" for number in range(40))
        for number in range(40):
            assert await found(store, Has(f"code{number}", TokenIs(f"system{number}", "x"))) == [f"good{number}"]
            assert await found(store, EVERYTHING, visibility(clause(f"p{number}"))) == [f"good{number}"]
        async with store.snapshot() as snapshot:
            assert await snapshot.classes() == ()
            assert (await snapshot.permission_epoch("p1")).patient == 0
        await put(store, record("bad1", "q1"))

    run(scenario)


def test_transaction_reads_its_own_writes_and_returns_its_result(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        async def job(transaction: Any) -> str:
            await transaction.put(record("a", "new", entries=[token("code", "x")]))
            assert await transaction.read(OBS, "a", visibility(clause("new")))
            assert len((await transaction.find(OBS, Has("code", TokenIs("s", "x")), ANYONE, limit=5)).rows) == 1
            assert await transaction.visible([f"{OBS}/a"], lambda _: ANYONE) == {f"{OBS}/a"}
            return "done"

        assert await store.write(job) == "done"

    run(scenario)


def test_prefetched_rows_reflect_writes_of_the_transaction(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("kept", "p1"), record("hidden", "p1", class_id=2), record("dropped", "p1"), record("replaced", "p1"))
        await put(store, record("coded", "p1", entries=[token("code", "x"), token("code", "y", class_id=3)]), record("gone", "p1"))
        await drop(store, "gone")
        names = [f"{OBS}/{id}" for id in ("kept", "hidden", "dropped", "replaced", "coded", "gone", "new", "never")]
        coded = {code: visibility(clause(where=Has("code", TokenIs("s", code)))) for code in ("x", "y")}

        async def job(transaction: Any) -> None:
            await transaction.prefetch([*names, names[0]])
            assert (await transaction.read_unfiltered(OBS, "gone")).interaction == "delete"
            await transaction.put(record("new", "p1", entries=[token("code", "y")]))
            await transaction.put(record("replaced", "p1", version=2, class_id=2))
            current = await transaction.read_unfiltered(OBS, "dropped")
            await transaction.delete(msgspec.structs.replace(current, version=2, body=b"", interaction="delete"))
            assert await transaction.visible(names, lambda _: ANYONE) == {f"{OBS}/{id}" for id in ("kept", "coded", "new")}
            assert await transaction.visible(names, lambda _: coded["x"]) == {f"{OBS}/coded"}
            assert await transaction.visible(names, lambda _: coded["y"]) == {f"{OBS}/new"}
            assert (await transaction.read(OBS, "replaced", ALL)).version == 2
            assert await transaction.read(OBS, "replaced", ANYONE) is None
            assert await transaction.read(OBS, "dropped", ALL) is None
            assert await transaction.read(OBS, "never", ALL) is None
            assert (await transaction.read_unfiltered(OBS, "dropped")).interaction == "delete"

        await store.write(job)
        assert sorted(await found(store, EVERYTHING)) == ["coded", "kept", "new"]

    run(scenario)


def test_transaction_sees_its_own_epoch_and_class_changes(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await in_job(store, "intern_class", "a")

        async def job(transaction: Any) -> None:
            assert await transaction.permission_epoch("p1") == PermissionEpoch(0, 0, 1)
            assert (await transaction.intern_class("a"), await transaction.intern_class("b")) == (0, 1)
            await transaction.advance_epoch("p1")
            await transaction.advance_epoch(None)
            assert await transaction.permission_epoch("p1") == PermissionEpoch(1, 1, 2)
            assert await transaction.permission_epoch(None) == PermissionEpoch(1, 0, 2)
            assert await transaction.classes() == ("a", "b")

        await store.write(job)

    run(scenario)
