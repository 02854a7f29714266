"""Writes: versions, deletions, relabeling and references."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.search.filters import EVERYTHING, Has, Present, RefersTo, TokenIs
from fhir_server.search.rows import SortKey
from fhir_server.store import GuardedReference, IndexedRow, LabeledElement, Store, VersionDigest, VersionHistory
from tests.store.conftest import RunScenario
from tests.store.samples import (
    ALL,
    ANYONE,
    OBS,
    clause,
    date,
    drop,
    found,
    in_job,
    put,
    quantity,
    record,
    reference,
    relabel,
    row,
    string,
    token,
    visibility,
)


def test_acknowledged_write_is_immediately_readable(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        for version in range(1, 30):
            await put(store, record("a", version=version, entries=[token("code", str(version))]))
            async with store.snapshot() as snapshot:
                assert (await snapshot.read(OBS, "a", ANYONE)).version == version  # type: ignore[union-attr]
            assert await found(store, Has("code", TokenIs("s", str(version)))) == ["a"]
            assert await found(store, Has("code", TokenIs("s", str(version - 1)))) == []

    run(scenario)


def test_an_update_replaces_entries_of_every_kind_and_patients(run: RunScenario) -> None:
    old = [token("t", "x"), reference("r", "P/1"), string("s", "Old"), date("d", 1), quantity("q", 1.5), token("kept", "k")]
    new = [
        token("t", "y"),
        reference("r", "P/2"),
        string("s", "New"),
        date("d", 2),
        quantity("q", 2),
        token("kept", "k"),
        date("d", 3),
    ]

    async def scenario(store: Store) -> None:
        await put(store, record("a", "p1", "p2", entries=old), record("b", "p1"))
        await put(store, record("a", "p3", "p1", version=2, entries=new))
        assert await found(store, Has("t", TokenIs("s", "x"))) == []
        assert await found(store, Has("r", RefersTo(frozenset({"P/1"})))) == []
        for patient, ids in (("p1", ["a", "b"]), ("p2", []), ("p3", ["a"])):
            assert sorted(await found(store, EVERYTHING, visibility(clause(patient)))) == ids
        async with store.snapshot() as snapshot:
            page = await snapshot.find(
                OBS, Present("kept", "token"), ANYONE, sort=tuple(SortKey(*k) for k in _ALL_KINDS), limit=1, after=None
            )
            assert [one.version for one in page.rows] == [2]
            assert len(await snapshot.versions(OBS, "a", ALL)) == 2
        await put(store, record("a", version=3))
        for param, kind in _ALL_KINDS:
            assert await found(store, Present(param, kind), ALL) == []

    run(scenario)


_ALL_KINDS = (("t", "token"), ("r", "reference"), ("s", "string"), ("d", "date"), ("q", "quantity"))


def test_equal_entries_merge_only_within_one_class(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(
            store,
            record("a", entries=[token("t", "x"), token("t", "x"), token("t", "x", class_id=3), quantity("q", 1), quantity("q", 1.0)]),
        )
        assert await found(store, Has("t", TokenIs("s", "x"))) == ["a"]
        assert await found(store, Has("t", TokenIs(None, "x")), visibility(clause(classes={0, 3}))) == ["a"]
        await put(store, record("a", version=2, entries=[token("t", "x", class_id=3)]))
        assert await found(store, Has("t", TokenIs("s", "x"))) == []

    run(scenario)


def test_all_entries_of_a_large_row_are_searchable(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", entries=[token("t", f"c{n}") for n in range(1000)]))
        for code in ("c0", "c63", "c64", "c999"):
            assert await found(store, Has("t", TokenIs("s", code))) == ["a"]

    run(scenario)


@pytest.mark.parametrize("version", [0, 1, 2, 4, 5])
def test_nonconsecutive_version_is_a_conflict(run: RunScenario, version: int) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a"), record("a", version=2))
        for attempt in (
            put(store, record("a", version=version)),
            put(store, record("new", version=version or 2)) if version != 1 else put(store, record("a", version=1)),
            in_job(store, "delete", row("a", version=version, interaction="delete")),
        ):
            with pytest.raises(Problem) as refused:
                await attempt
            assert refused.value.kind == "conflict"
        await put(store, record("a", version=3))
        await drop(store, "a")
        for again in (
            put(store, record("a", version=4)),
            put(store, record("a", version=1)),
            in_job(store, "delete", row("a", version=5)),
        ):
            with pytest.raises(Problem):
                await again
        await put(store, record("a", version=5))
        async with store.snapshot() as snapshot:
            assert [one.version for one in await snapshot.versions(OBS, "a", ALL)] == [1, 2, 3, 4, 5]

    run(scenario)


def test_concurrent_writes_of_one_version_succeed_once(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a"))
        results = await asyncio.gather(*(put(store, record("a", version=2)) for _ in range(20)), return_exceptions=True)
        assert results.count(None) == 1
        assert all(isinstance(one, Problem) and one.kind == "conflict" for one in results if one is not None)

    run(scenario)


def test_read_unfiltered_returns_hidden_and_deleted_rows(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", "p1", class_id=3, release_at=MAX_INSTANT))
        assert (await in_job(store, "read_unfiltered", OBS, "a")).class_id == 3
        await drop(store, "a")
        deletion = await in_job(store, "read_unfiltered", OBS, "a")
        assert (deletion.interaction, deletion.version, deletion.body, deletion.patients) == ("delete", 2, b"", ("p1",))
        assert await in_job(store, "read_unfiltered", OBS, "never") is None

    run(scenario)


def test_relabel_changes_visibility_without_a_new_version(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", "p1", entries=[token("t", "x")]))
        changed = row(
            "a",
            "p1",
            "p2",
            class_id=1,
            release_at=7,
            body=b"not this",
            labeled_elements=(LabeledElement(("x",), 3),),
            guarded_references=(GuardedReference(("y",), "P/1"),),
            history=VersionHistory(VersionDigest(1, 10, 1, 7, ())),
        )
        await in_job(store, "relabel", IndexedRow(changed, (token("t", "x", class_id=3),)))
        async with store.snapshot() as snapshot:
            seen = await snapshot.read(OBS, "a", visibility(clause("p2")))
            assert seen == msgspec.structs.replace(changed, body=b'{"id":"a","v":1}')
            assert len(await snapshot.versions(OBS, "a", ALL)) == 1
        assert await found(store, Has("t", TokenIs("s", "x"))) == []
        assert await found(store, Has("t", TokenIs("s", "x")), ALL) == ["a"]
        for missing in (record("a", version=2), record("never")):
            with pytest.raises(Problem) as refused:
                await in_job(store, "relabel", missing)
            assert refused.value.kind == "conflict"

    run(scenario)


def test_relabel_applies_to_each_version_and_the_deletion(run: RunScenario) -> None:
    later = {
        "labeled_elements": (LabeledElement(("x",), 3),),
        "guarded_references": (GuardedReference(("y",), "P/1"),),
        "history": VersionHistory(VersionDigest(1, 10, 1, 7, ())),
        "release_at": 7,
    }

    async def scenario(store: Store) -> None:
        await put(store, record("a", "p1", entries=[token("t", "x")]), record("a", "p1", version=2), record("b", "p1"))
        await drop(store, "a")
        await put(store, record("a", "p1", version=4))
        was = {
            one.version: one
            for one in (*await in_job(store, "read_past_unfiltered", OBS, "a"), await in_job(store, "read_unfiltered", OBS, "a"))
        }
        assert [was[n].interaction for n in was] == ["create", "create", "delete", "create"]
        for version in (1, 3, 2):
            changed = row("a", "p2", "p1", version=version, class_id=1, body=b"not this", **later)
            await relabel(store, IndexedRow(changed, (token("t", "y", class_id=1),)))
            was[version] = msgspec.structs.replace(
                changed, body=was[version].body, updated=was[version].updated, interaction=was[version].interaction
            )
            assert list(await in_job(store, "read_past_unfiltered", OBS, "a")) == [was[1], was[2], was[3]]
            assert await in_job(store, "read_unfiltered", OBS, "a") == was[4]
        only_y = visibility(clause("p2", where=Has("t", TokenIs("s", "y"))))
        await relabel(store, record("a", "p2", version=4, entries=[token("t", "y")]))
        async with store.snapshot() as snapshot:
            assert [one.version for one in await snapshot.versions(OBS, "a", only_y)] == [1, 2, 3, 4]
            assert await snapshot.count(OBS, Has("t", TokenIs("s", "x")), ALL) == 0
            assert await snapshot.count(OBS, Has("t", TokenIs("s", "y")), ALL) == 1
        for missing in (record("a", version=5), record("a", version=0), record("b", version=2)):
            with pytest.raises(Problem) as refused:
                await relabel(store, missing)
            assert refused.value.kind == "conflict"

    run(scenario)


def test_deleted_row_can_be_relabeled(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", "p1"))
        await drop(store, "a")
        await relabel(store, record("a", "p1", class_id=2), record("a", "p1", version=2, class_id=2))
        async with store.snapshot() as snapshot:
            assert await snapshot.versions(OBS, "a", ANYONE) == ()
            assert [one.interaction for one in await snapshot.versions(OBS, "a", ALL)] == ["create", "delete"]
        assert (await in_job(store, "read_unfiltered", OBS, "a")).class_id == 2
        assert [one.version for one in await in_job(store, "read_past_unfiltered", OBS, "a")] == [1]
        assert await found(store, EVERYTHING, ALL) == []
        assert await in_job(store, "read_past_unfiltered", OBS, "never") == ()

    run(scenario)


def test_referrers_are_rows_with_any_version_that_refers(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(
            store,
            record("a", "p1", class_id=3, entries=[reference("encounter", "Encounter/1", class_id=3)]),
            record("b", entries=[reference("context", "Encounter/1")]),
            record("c", entries=[reference("encounter", "Encounter/2")]),
            record("d", entries=[reference("encounter", "Encounter/1")]),
            record("e", type="Condition", entries=[reference("encounter", "Encounter/1")]),
        )
        await put(store, record("b", version=2))
        await drop(store, "d")

        async def names(*args: Any) -> set[str]:
            return {f"{one.type}/{one.id}" for one in await in_job(store, "referrers_unfiltered", *args)}

        everyone = {f"{OBS}/a", f"{OBS}/b", f"{OBS}/d", "Condition/e"}
        assert await names("Encounter/1") == everyone
        assert await names("Encounter/1", frozenset({f"{OBS}.encounter", "Never.x"})) == {f"{OBS}/a", f"{OBS}/d"}
        assert await names("Encounter/1", frozenset()) == set()
        assert await names("Encounter/3") == set()
        assert {(one.id, one.version, one.interaction) for one in await in_job(store, "referrers_unfiltered", "Encounter/1")} == {
            ("a", 1, "create"), ("b", 2, "create"), ("d", 2, "delete"), ("e", 1, "create"),
        }  # fmt: skip
        await put(store, record("d", version=3), record("b", version=3, entries=[reference("context", "Encounter/1")]))
        await put(store, record("b", version=4), record("b", version=5))
        assert await names("Encounter/1") == everyone
        await relabel(store, record("b", version=2, entries=[reference("_refers", "Location/x", class_id=3)]))
        await relabel(store, record("c", entries=[reference("_refers", "Location/x", class_id=3)]))
        assert await names("Location/x") == {f"{OBS}/b", f"{OBS}/c"}
        assert await found(store, Has("context", RefersTo(frozenset({"Encounter/1"}))), ALL) == []
        assert await found(store, Present("_refers", "reference"), ALL) == ["c"]

    run(scenario)


def test_erased_resource_leaves_no_version_and_no_entry(run: RunScenario) -> None:
    entries = [token("t", "x"), reference("r", "P/1"), string("s", "Old"), date("d", 1), quantity("q", 1.5)]
    kinds = {"t": "token", "r": "reference", "s": "string", "d": "date", "q": "quantity"}

    async def scenario(store: Store) -> None:
        await put(store, record("a", "p1", "p2", entries=entries), record("b", "p1", entries=entries))
        await put(store, record("a", "p1", "p2", version=2, entries=[reference("r", "P/2")]))
        await put(store, record("c", "p1", entries=entries))
        await drop(store, "c")

        async def erase(tx: Any) -> list[int]:
            return [await tx.erase_unfiltered(OBS, id) for id in ("a", "c", "never")]

        assert await store.write(erase) == [2, 2, 0]
        for param, kind in kinds.items():
            assert await found(store, Present(param, kind)) == ["b"]
        async with store.snapshot() as snapshot:
            for id in ("a", "c", "never"):
                assert await snapshot.versions(OBS, id, ALL) == ()
            assert await snapshot.deleted_unfiltered([f"{OBS}/a", f"{OBS}/c"]) == frozenset()

        async def left(tx: Any) -> list[str]:
            assert await tx.read_unfiltered(OBS, "a") is None and await tx.read_past_unfiltered(OBS, "a") == ()
            return [referrer.id for target in ("P/1", "P/2") for referrer in await tx.referrers_unfiltered(target)]

        assert await store.write(left) == ["b"]
        await put(store, record("a", "p1", entries=entries))
        assert sorted(await found(store, Present("t", "token"))) == ["a", "b"]

    run(scenario)
