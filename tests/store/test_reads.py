"""What a snapshot returns for single rows, and what it hides."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.clock import MAX_INSTANT
from fhir_server.search.filters import EVERYTHING, Has, OfPatient, TokenIs
from fhir_server.search.visibility import Visibility
from fhir_server.store import GuardedReference, LabeledElement, Store, VersionDigest, VersionHistory
from tests.store.conftest import RunScenario
from tests.store.samples import ALL, ANYONE, NOW, OBS, SEEN, clause, drop, found, put, record, row, token, visibility


def test_row_is_read_back_as_written(run: RunScenario) -> None:
    full = row(
        "a",
        "p1",
        "p2",
        class_id=1,
        release_at=5,
        body='{"text":"1.50 é"}'.encode(),
        labeled_elements=(LabeledElement(("component", 1, "value"), 3),),
        guarded_references=(GuardedReference(("encounter", "reference"), "Encounter/e"),),
        history=VersionHistory(VersionDigest(1, 10, 1, 5, ((1, "digest"), (3, "other")))),
    )
    plain = row("b")

    async def scenario(store: Store) -> None:
        await put(store, record("a"), record("b"))
        full_2, plain_2 = (type(full)(*[*_fields(one)[:2], 2, *_fields(one)[3:]]) for one in (full, plain))
        from fhir_server.store import IndexedRow

        await put(store, IndexedRow(full_2), IndexedRow(plain_2))
        async with store.snapshot() as snapshot:
            assert await snapshot.read(OBS, "a", ALL) == full_2
            assert await snapshot.read(OBS, "b", ALL) == plain_2
            assert (await snapshot.find(OBS, EVERYTHING, ALL, limit=9)).rows[0] == plain_2

    def _fields(one):  # type: ignore[no-untyped-def]
        return [getattr(one, name) for name in one.__struct_fields__]

    run(scenario)


@pytest.mark.parametrize(
    ("seen", "shown"),
    [
        (ANYONE, {"mine", "other", "shared", "nobody"}),
        (visibility(clause("p1")), {"mine", "shared"}),
        (visibility(clause("p2")), {"other", "shared"}),
        (visibility(clause("p1"), clause("p2")), {"mine", "other", "shared"}),
        (visibility(clause("p1", "p2", "unknown")), {"mine", "other", "shared"}),
        (visibility(clause("unknown")), set()),
        (visibility(clause("p1", classes={2})), {"secret"}),
        (visibility(clause("p1", classes=())), set()),
        (visibility(clause("p1", released=False)), {"mine", "shared", "held", "tomorrow"}),
        (visibility(clause("p1"), now=NOW + 1), {"mine", "shared", "tomorrow"}),
        (visibility(clause("p1", where=Has("code", TokenIs("s", "x")))), {"mine"}),
        (visibility(clause("p1", where=OfPatient(frozenset({"p2"})))), {"shared"}),
        (visibility(clause("p1", classes={2}), clause("p2", classes={0})), {"secret", "other", "shared"}),
        (Visibility(), set()),
    ],
)
def test_every_read_method_returns_exactly_the_visible_rows(run: RunScenario, seen: Visibility, shown: set[str]) -> None:
    rows = (
        record("mine", "p1", entries=[token("code", "x")]),
        record("other", "p2", entries=[token("code", "x")]),
        record("shared", "p2", "p1", entries=[token("code", "x", class_id=3)]),
        record("nobody"),
        record("secret", "p1", class_id=2),
        record("held", "p1", release_at=MAX_INSTANT),
        record("tomorrow", "p1", release_at=NOW + 1),
    )
    ids = [one.row.id for one in rows]

    async def scenario(store: Store) -> None:
        await put(store, *rows)
        async with store.snapshot() as snapshot:
            assert {id for id in ids if await snapshot.read(OBS, id, seen)} == shown
            targets = [*(f"{OBS}/{id}" for id in ids), "Patient/mine", f"{OBS}/never", f"{OBS}/mine/_history/1", "urn:x", ""]
            assert await snapshot.visible(targets, lambda _: seen) == {f"{OBS}/{id}" for id in shown}
            assert {id for id in ids if await snapshot.versions(OBS, id, seen)} == shown
        assert set(await found(store, EVERYTHING, seen)) == shown

    run(scenario)


def test_rows_of_two_types_can_share_an_id(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", "p1"), record("a", "p2", type="Condition"))
        async with store.snapshot() as snapshot:
            assert (await snapshot.read(OBS, "a", ANYONE)).patients == ("p1",)  # type: ignore[union-attr]
            assert (await snapshot.read("Condition", "a", ANYONE)).patients == ("p2",)  # type: ignore[union-attr]
            assert await snapshot.read("Nothing", "a", ANYONE) is None

    run(scenario)


def test_version_is_visible_only_if_it_and_the_newest_are_admitted(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", "p1"), record("a", "p1", version=2, class_id=2), record("a", "p1", version=3, class_id=1))
        await put(store, record("b", "p1"), record("b", "p1", version=2, class_id=2))
        async with store.snapshot() as snapshot:
            assert [one.version for one in await snapshot.versions(OBS, "a", ANYONE)] == [1, 3]
            assert [one.version for one in await snapshot.versions(OBS, "a", ALL)] == [1, 2, 3]
            assert [one.body for one in await snapshot.versions(OBS, "a", ALL)][:2] == [b'{"id":"a","v":1}', b'{"id":"a","v":2}']
            assert await snapshot.versions(OBS, "b", ANYONE) == ()
            assert await snapshot.versions(OBS, "c", ALL) == ()

    run(scenario)


def test_old_version_is_filtered_by_its_own_entries_and_patients(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        seen = visibility(clause("p1", where=Has("code", TokenIs("s", "x"))))
        x, y = [token("code", "x")], [token("code", "y")]
        await put(store, record("a", "p1", entries=x), record("a", "p1", version=2, entries=y))
        await put(store, record("a", "p2", version=3, entries=x), record("a", "p1", version=4, entries=x))
        async with store.snapshot() as snapshot:
            assert [one.version for one in await snapshot.versions(OBS, "a", seen)] == [1, 4]

    run(scenario)


def test_a_deletion_is_a_version_and_hides_the_row(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        entries = [token("code", "x")]
        await put(store, record("a", "p1", "p2", entries=entries), record("kept", "p1"))
        await put(store, record("secret", "p1", class_id=2))
        await drop(store, "a", "secret")
        seen = visibility(clause("p2", where=Has("code", TokenIs("s", "x"))))
        async with store.snapshot() as snapshot:
            assert await snapshot.read(OBS, "a", ALL) is None
            assert await snapshot.visible([f"{OBS}/a"], lambda _: ALL) == frozenset()
            versions = await snapshot.versions(OBS, "a", seen)
            assert [(one.version, one.interaction, one.body == b"") for one in versions] == [
                (1, "create", False),
                (2, "delete", True),
            ]
            assert versions[1].patients == ("p1", "p2")
            assert await snapshot.versions(OBS, "secret", ANYONE) == ()
        assert await found(store, EVERYTHING) == ["kept"]
        assert await found(store, Has("code", TokenIs("s", "x")), ALL) == []

    run(scenario)


def test_patients_of_returns_all_patients_of_visible_matches(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        x = [token("code", "x")]
        await put(store, record("a", "p1", "p2", entries=x), record("b", "p3"), record("c", "p4", entries=x, class_id=2))
        async with store.snapshot() as snapshot:
            assert await snapshot.patients_of(OBS, Has("code", TokenIs("s", "x")), ANYONE) == {"p1", "p2"}
            assert await snapshot.patients_of(OBS, EVERYTHING, visibility(clause("p1"), clause("p3"))) == {"p1", "p2", "p3"}
            assert await snapshot.patients_of(OBS, EVERYTHING, Visibility()) == frozenset()

    run(scenario)


def test_types_of_returns_types_of_the_patients_current_rows(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", "p1"), record("b", "p1", "p2", type="Condition"), record("c", "p3", type="Goal", class_id=2))
        await put(store, record("gone", "p2", type="Account"))
        await store.write(lambda tx: tx.delete(row("gone", "p2", type="Account", version=2, body=b"", interaction="delete")))
        async with store.snapshot() as snapshot:
            assert await snapshot.types_of_unfiltered(frozenset({"p1"})) == {OBS, "Condition"}
            assert await snapshot.types_of_unfiltered(frozenset({"p2"})) == {"Condition"}
            assert await snapshot.types_of_unfiltered(frozenset({"p1", "p3", "nobody"})) == {OBS, "Condition", "Goal"}
            assert await snapshot.types_of_unfiltered(frozenset()) == frozenset()

    run(scenario)


def test_deleted_of_returns_those_whose_newest_version_is_a_deletion(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("here"), record("gone", class_id=3), record("back"))
        await drop(store, "gone", "back")
        await put(store, record("back", version=3))
        names = [f"{OBS}/{id}" for id in ("here", "gone", "back", "never")] + ["Nonsense/x"]
        async with store.snapshot() as snapshot:
            assert await snapshot.deleted_unfiltered(names) == {f"{OBS}/gone"}
            assert await snapshot.deleted_unfiltered(()) == frozenset()

        async def job(transaction: Any) -> frozenset[str]:
            await transaction.delete(row("here", version=2, body=b"", interaction="delete"))
            return await transaction.deleted_unfiltered(names)  # type: ignore[no-any-return]

        assert await store.write(job) == {f"{OBS}/gone", f"{OBS}/here"}

    run(scenario)


def test_snapshot_does_not_see_later_writes(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a"))
        async with store.snapshot() as before:
            assert await before.read(OBS, "a", ANYONE)
            await put(store, record("b"), record("a", version=2))
            assert await before.read(OBS, "b", ANYONE) is None
            assert (await before.read(OBS, "a", ANYONE)).version == 1  # type: ignore[union-attr]
            async with store.snapshot() as after:
                assert (await after.read(OBS, "a", ANYONE)).version == 2  # type: ignore[union-attr]
                assert await after.count(OBS, EVERYTHING, ANYONE) == 2

    run(scenario)


def test_rows_are_visible_exactly_in_the_admitted_classes(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        numbers = [0, 1, 7, 8, 9, 300, 301]
        await put(store, *(record(f"r{number}", class_id=number) for number in numbers))
        for classes in (SEEN, {7, 9, 301}, {300}, {302}, set(range(0, 400, 2))):
            shown = await found(store, EVERYTHING, visibility(clause(classes=classes)))
            assert shown == [f"r{number}" for number in numbers if number in classes]

    run(scenario)
