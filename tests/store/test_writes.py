"""Writes: versions, deletions, relabeling, references, counters, and jobs that are stored completely or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.search.filters import EVERYTHING, Has, Present, RefersTo, TokenIs
from fhir_server.search.rows import SortKey
from fhir_server.store import GuardedReference, IndexedRow, LabeledElement, PermissionEpoch, Store, VersionDigest
from tests.store.conftest import ValidationRun
from tests.store.samples import (
    ALL,
    ANYONE,
    OBS,
    clause,
    date,
    drop,
    found,
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


async def in_job(store: Store, method: str, *args: Any) -> Any:
    async def job(transaction: Any) -> Any:
        return await getattr(transaction, method)(*args)

    return await store.write(job)


def test_acknowledged_write_is_immediately_readable(run: ValidationRun) -> None:
    async def scenario(store: Store) -> None:
        for version in range(1, 30):
            await put(store, record("a", version=version, entries=[token("code", str(version))]))
            async with store.snapshot() as snapshot:
                assert (await snapshot.read(OBS, "a", ANYONE)).version == version  # type: ignore[union-attr]
            assert await found(store, Has("code", TokenIs("s", str(version)))) == ["a"]
            assert await found(store, Has("code", TokenIs("s", str(version - 1)))) == []

    run(scenario)


def test_an_update_replaces_entries_of_every_kind_and_patients(run: ValidationRun) -> None:
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
            page = await snapshot.find(OBS, Present("kept"), ANYONE, sort=tuple(SortKey(*k) for k in _ALL_KINDS), limit=1, after=None)
            assert [one.version for one in page.rows] == [2]
            assert len(await snapshot.versions(OBS, "a", ALL)) == 2
        await put(store, record("a", version=3))
        for param, _ in _ALL_KINDS:
            assert await found(store, Present(param), ALL) == []

    run(scenario)


_ALL_KINDS = (("t", "token"), ("r", "reference"), ("s", "string"), ("d", "date"), ("q", "quantity"))


def test_equal_entries_merge_only_within_one_class(run: ValidationRun) -> None:
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


def test_all_entries_of_a_large_row_are_searchable(run: ValidationRun) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", entries=[token("t", f"c{n}") for n in range(1000)]))
        for code in ("c0", "c63", "c64", "c999"):
            assert await found(store, Has("t", TokenIs("s", code))) == ["a"]

    run(scenario)


@pytest.mark.parametrize("version", [0, 1, 2, 4, 5])
def test_nonconsecutive_version_is_a_conflict(run: ValidationRun, version: int) -> None:
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


def test_concurrent_writes_of_one_version_succeed_once(run: ValidationRun) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a"))
        results = await asyncio.gather(*(put(store, record("a", version=2)) for _ in range(20)), return_exceptions=True)
        assert results.count(None) == 1
        assert all(isinstance(one, Problem) and one.kind == "conflict" for one in results if one is not None)

    run(scenario)


def test_read_unfiltered_returns_hidden_and_deleted_rows(run: ValidationRun) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", "p1", class_id=3, release_at=MAX_INSTANT))
        assert (await in_job(store, "read_unfiltered", OBS, "a")).class_id == 3
        await drop(store, "a")
        deletion = await in_job(store, "read_unfiltered", OBS, "a")
        assert (deletion.interaction, deletion.version, deletion.body, deletion.patients) == ("delete", 2, b"", ("p1",))
        assert await in_job(store, "read_unfiltered", OBS, "never") is None

    run(scenario)


def test_relabel_changes_visibility_without_a_new_version(run: ValidationRun) -> None:
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
            version_digests=(VersionDigest(1, 10, 1, 7, ()),),
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


def test_relabel_applies_to_each_version_and_the_deletion(run: ValidationRun) -> None:
    later = {
        "labeled_elements": (LabeledElement(("x",), 3),),
        "guarded_references": (GuardedReference(("y",), "P/1"),),
        "version_digests": (VersionDigest(1, 10, 1, 7, ()),),
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


def test_deleted_row_can_be_relabeled(run: ValidationRun) -> None:
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


def test_referrers_are_rows_with_any_version_that_refers(run: ValidationRun) -> None:
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
        assert await found(store, Present("_refers"), ALL) == ["c"]

    run(scenario)


def test_class_ids_count_from_zero_in_insertion_order(run: ValidationRun) -> None:
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


def test_epoch_advances_only_on_request_or_with_a_new_class(run: ValidationRun) -> None:
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


def test_failed_transaction_stores_nothing_and_others_succeed(run: ValidationRun) -> None:
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


def test_transaction_reads_its_own_writes_and_returns_its_result(run: ValidationRun) -> None:
    async def scenario(store: Store) -> None:
        async def job(transaction: Any) -> str:
            await transaction.put(record("a", "new", entries=[token("code", "x")]))
            assert await transaction.read(OBS, "a", visibility(clause("new")))
            assert len((await transaction.find(OBS, Has("code", TokenIs("s", "x")), ANYONE, limit=5)).rows) == 1
            assert await transaction.visible([f"{OBS}/a"], lambda _: ANYONE) == {f"{OBS}/a"}
            return "done"

        assert await store.write(job) == "done"

    run(scenario)


def test_prefetched_rows_reflect_writes_of_the_transaction(run: ValidationRun) -> None:
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


def test_transaction_sees_its_own_epoch_and_class_changes(run: ValidationRun) -> None:
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
