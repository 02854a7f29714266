"""Names of rows that refer to each other, and key-value records of transactions, on every store."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.store import Store
from tests.store.conftest import RunScenario
from tests.store.samples import OBS, drop, in_job, put, record, reference


def test_referrer_names_come_in_order_with_patients(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(
            store,
            record("a", "p1", "p2", entries=[reference("encounter", "Encounter/1")]),
            record("b", "p3", entries=[reference("context", "Encounter/2")]),
            record("c", "p1", entries=[reference("encounter", "Encounter/3")]),
            record("d", entries=[reference("encounter", "Encounter/1")]),
            record("e", "p1", type="Condition", entries=[reference("encounter", "Encounter/1")]),
        )
        await put(store, record("b", "p3", version=2))
        await drop(store, "d")
        both = ("Encounter/1", "Encounter/2")
        everyone = {"Condition/e": ("p1",), f"{OBS}/a": ("p1", "p2"), f"{OBS}/b": ("p3",), f"{OBS}/d": ()}
        found = await in_job(store, "referrer_names_unfiltered", both)
        assert found == everyone and list(found) == sorted(everyone)
        assert list(await in_job(store, "referrer_names_unfiltered", both, "", 2)) == sorted(everyone)[:2]
        assert list(await in_job(store, "referrer_names_unfiltered", both, f"{OBS}/a", 2)) == sorted(everyone)[2:]
        assert await in_job(store, "referrer_names_unfiltered", ("Encounter/9",)) == {}

    run(scenario)


def test_referred_names_are_those_of_all_versions(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", entries=[reference("specimen", "Specimen/1"), reference("encounter", "Encounter/1")]))
        await put(store, record("a", version=2, entries=[reference("specimen", "Specimen/2")]))
        await put(store, record("b", entries=[reference("specimen", "Specimen/3")]))
        params = frozenset({f"{OBS}.specimen", "Condition.other"})
        assert await in_job(store, "referred_names_unfiltered", (f"{OBS}/a",), params) == {"Specimen/1", "Specimen/2"}
        assert await in_job(store, "referred_names_unfiltered", (f"{OBS}/a", f"{OBS}/c"), frozenset({"Condition.specimen"})) == frozenset()

    run(scenario)


def test_records_are_stored_with_their_transaction_or_not_at_all(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        async def job(tx: Any) -> Any:
            for key in ("m/2", "m/1", "n/1"):
                await tx.set_record("work", key, key.encode())
            await tx.set_record("work", "n/2", b"x")
            await tx.set_record("work", "n/2", None)
            return await tx.records_unfiltered("work", "m/")

        async def failing(tx: Any) -> None:
            await tx.set_record("work", "m/3", b"lost")
            raise ValueError

        assert await store.write(job) == (("m/1", b"m/1"), ("m/2", b"m/2"))
        with pytest.raises(ValueError):
            await store.write(failing)
        async with store.snapshot() as snapshot:
            assert [key for key, _ in await snapshot.records_unfiltered("work")] == ["m/1", "m/2", "n/1"]
            assert [key for key, _ in await snapshot.records_unfiltered("work", limit=1)] == ["m/1"]
        assert [key for key, _ in await store.key_values.list_all("work", 0)] == ["m/1", "m/2", "n/1"]

    run(scenario)
