"""The order of rows, and pages that together return the whole result, also with writes between them."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.search.filters import EVERYTHING, Filter, Has, TokenIs
from fhir_server.search.rows import Position, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import Row, Store
from tests.store.conftest import RunScenario
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
    string,
    token,
    visibility,
)


async def walk(store: Store, where: Filter, seen: Visibility, sort: tuple[SortKey, ...], limit: int, between: Any = None) -> list[str]:
    ids: list[str] = []
    after: Position | None = None
    while True:
        async with store.snapshot() as snapshot:
            page = await snapshot.find(OBS, where, seen, sort=sort, limit=limit, after=after)
        assert len(page.rows) <= limit
        ids += [one.id for one in page.rows]
        after = page.next
        if after is None:
            return ids
        assert page.rows
        if between:
            await between(page.rows)


def test_rows_of_a_patient_keep_the_order_first_stored(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *(record(id, "p1") for id in ("c", "a", "b")), record("z"), record("y"))
        await put(store, record("c", "p1", version=2), record("z", version=2))
        await drop(store, "a")
        await put(store, record("a", "p1", version=3))
        assert await found(store, EVERYTHING, visibility(clause("p1"))) == ["c", "a", "b"]
        assert (await found(store, EVERYTHING))[:2] == ["z", "y"]

    run(scenario)


def test_order_does_not_reveal_which_patient_was_stored_first(run: RunScenario) -> None:
    async def order(store: Store, *patients: str) -> list[str]:
        await put(store, *(record(f"hidden-{patient}", patient, class_id=2) for patient in patients))
        await put(store, record("a", "p1"), record("b", "p2"), record("c", "p3"))
        return await found(store, EVERYTHING)

    one = run(lambda store: order(store, "p1", "p2", "p3"))
    # another empty store of the same kind would share the file, so the other order is checked in the memory store
    from fhir_server.store import open_store

    other = run_alone(order(open_store("memory:"), "p3", "p2", "p1"))
    assert one == other


def run_alone(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)


OTHERS = ("hidden", "p0", "p2", "p5", "z")  # patients whose numbers come before and after that of p1


@pytest.mark.parametrize("where", [EVERYTHING, Has("t", TokenIs("s", "x"))])
@pytest.mark.parametrize("sort", [(), (SortKey("d", "date"),), (SortKey("d", "date", True), SortKey("t", "token"))])
@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_row_order_does_not_reveal_other_patients(run: RunScenario, where: Filter, sort: tuple[SortKey, ...], limit: int) -> None:
    async def scenario(store: Store) -> None:
        entries = [token("t", "x"), date("d", 1)]
        for other in OTHERS:
            await put(store, record(f"{other}-before", "p1", entries=entries))
            await put(store, record(f"{other}-first", other, "p1", entries=entries), record(f"{other}-later", "p1", other, entries=entries))
        expected = [f"{other}-{part}" for other in OTHERS for part in ("before", "first", "later")]
        assert await walk(store, where, visibility(clause("p1")), sort, limit) == expected
        assert await walk(store, where, visibility(clause("p1"), clause("p1", released=False)), sort, limit) == expected

    run(scenario)


@pytest.mark.parametrize("where", [EVERYTHING, Has("t", TokenIs("s", "x"))])
@pytest.mark.parametrize("sort", [(), (SortKey("d", "date"),)])
@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_rows_of_named_patients_keep_the_order_stored(run: RunScenario, where: Filter, sort: tuple[SortKey, ...], limit: int) -> None:
    async def scenario(store: Store) -> None:
        ids = [f"r{n}" for n in range(12)]
        for n, id in enumerate(ids):
            await put(store, record(id, f"p{n % 4}", *(["p0"] if n % 5 == 1 else []), entries=[token("t", "x"), token("t", "y")]))
        among = [id for n, id in enumerate(ids) if n % 4 < 3 or n % 5 == 1]
        for clauses in ([clause("p0", "p1", "p2")], [clause("p0"), clause("p1"), clause("p2")], [clause("p0", "p2"), clause("p0", "p1")]):
            assert await walk(store, where, visibility(*clauses), sort, limit) == among

    run(scenario)


BETWEEN = record("between", "p1")


@pytest.mark.parametrize(
    ("versions", "ids"),
    [
        ([{}, {}], "row between"),
        ([{"class_id": 2}, {}], "between row"),
        ([{"class_id": 1}, {}], "between row"),
        ([{"release_at": MAX_INSTANT}, {}], "between row"),
        ([{}, {"class_id": 2}, {}], "row between"),
        ([{"class_id": 1}, {"class_id": 2}, {"class_id": 1}], "row between"),
        ([{"class_id": 2}, {}, {"class_id": 2}, {}], "between row"),
        ([{"patients": ("p2",)}, {}], "between row"),
        ([{"patients": ("p2",)}, {"patients": ("p2", "p1")}, {}], "between row"),
        ([{}, {"patients": ("p0", "p1")}], "row between"),
        ([{}, {"patients": ("p2",)}, {}], "row between"),
        ([{"class_id": 2}, None, {}], "between row"),
        ([{}, None, {}], "row between"),
        ([{}, None, {"class_id": 2}, {}], "row between"),
    ],
)
def test_row_is_ordered_by_first_version_labeled_like_the_current(
    run: RunScenario, versions: list[dict[str, Any] | None], ids: str
) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("older", "p1"))
        for number, version in enumerate(versions):
            if version is None:
                await drop(store, "row")
            else:
                await put(store, record("row", *version.get("patients", ("p1",)), version=number + 1, **_without_patients(version)))
            if number == 0:
                await put(store, BETWEEN)
        await put(store, record("newer", "p1"))
        expected = ["older", *ids.split(), "newer"]
        assert await found(store, EVERYTHING, visibility(clause("p1"))) == expected
        assert await found(store, EVERYTHING, visibility(clause("p1")), (SortKey("d", "date"),)) == expected
        assert await walk(store, EVERYTHING, visibility(clause("p1")), (), 1) == expected

    run(scenario)


def _without_patients(version: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in version.items() if name != "patients"}


def test_row_order_follows_current_labels_of_its_versions(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("row", "p1", class_id=2), BETWEEN, record("row", "p1", version=2))
        for class_id, ids in ((0, ["row", "between"]), (3, ["between", "row"]), (0, ["row", "between"])):
            await relabel(store, record("row", "p1", class_id=class_id))
            assert await found(store, EVERYTHING, visibility(clause("p1"))) == ids
        await relabel(store, record("row", "p1", version=2, class_id=1))
        assert await found(store, EVERYTHING, visibility(clause("p1"))) == ["between", "row"]
        await relabel(store, record("row", "p1", class_id=1))
        assert await found(store, EVERYTHING, visibility(clause("p1"))) == ["row", "between"]

    run(scenario)


SORTED = (
    record("two", entries=[token("t", "b"), date("d", 5, 9), string("s", "bb"), reference("r", "P/2"), quantity("q", 2.5)]),
    record("none"),
    record(
        "many",
        entries=[*(token("t", code) for code in "ca"), date("d", 1, 20), date("d", 7), quantity("q", -1), quantity("q", 9)],
    ),
    record("one", entries=[token("t", "a", "z"), date("d", 2, 3), string("s", "Aa"), reference("r", "P/1"), quantity("q", 1)]),
    record("also", entries=[token("t", "b", "a"), date("d", 5, 9), string("s", "BB"), reference("r", "P/2"), quantity("q", 2.5)]),
    record("veiled", entries=[token("t", "0", class_id=3), date("d", -5, 99, 3), string("s", "0", 3), quantity("q", -99, class_id=3)]),
)


@pytest.mark.parametrize(
    ("param", "kind", "up", "down"),
    [
        ("t", "token", "many one two also none veiled", "many two also one none veiled"),
        ("d", "date", "many one two also none veiled", "many two also one none veiled"),
        ("s", "string", "one two also none many veiled", "two also one none many veiled"),
        ("r", "reference", "one two also none many veiled", "two also one none many veiled"),
        ("q", "quantity", "many one two also none veiled", "many two also one none veiled"),
        ("_id", "token", "also many none one two veiled", "veiled two one none many also"),
        ("never", "date", "two none many one also veiled", "two none many one also veiled"),
        ("t", "date", "two none many one also veiled", "two none many one also veiled"),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_each_type_sorts_by_least_or_greatest_admitted_value(
    run: RunScenario, param: str, kind: str, up: str, down: str, limit: int
) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *SORTED)
        for descending, ids in ((False, up), (True, down)):
            sort = (SortKey(param, kind, descending),)
            assert await walk(store, EVERYTHING, ANYONE, sort, limit) == ids.split()

    run(scenario)


@pytest.mark.parametrize("seen", [ANYONE, visibility(clause("p1"))])
@pytest.mark.parametrize("limit", [1, 10])
def test_last_updated_sorts_by_the_time_that_the_caller_reads(run: RunScenario, seen: Visibility, limit: int) -> None:
    async def scenario(store: Store) -> None:
        times = {"first": (10, 20), "last": (5, 60), "hides": (30,), "middle": (1, 40)}
        rows = {id: tuple(date("_lastUpdated", time) for time in found) for id, found in times.items()}
        rows["hides"] += (date("_lastUpdated", 90, class_id=2),)
        await put(store, *(record(id, "p1", entries=entries) for id, entries in rows.items()))
        order = ["first", "hides", "middle", "last"]
        for descending, expected in ((False, order), (True, order[::-1])):
            assert await walk(store, EVERYTHING, seen, (SortKey("_lastUpdated", "date", descending),), limit) == expected

    run(scenario)


def test_admitting_more_classes_sorts_by_more_values(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *SORTED)
        assert (await found(store, EVERYTHING, ALL, (SortKey("q", "quantity"),)))[0] == "veiled"
        assert (await found(store, EVERYTHING, ANYONE, (SortKey("q", "quantity"),)))[0] == "many"

    run(scenario)


def test_store_sorts_rows_by_classes_of_admitting_clauses(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        entries = [date("d", 1, class_id=3), date("d", 9)]
        await put(
            store,
            record("a", "p1", entries=entries),
            record("b", "p2", entries=entries),
            record("c", "p1", entries=[date("d", 5)]),
        )
        seen = visibility(clause("p1", classes={0}), clause("p2", classes={0, 3}))
        assert await found(store, EVERYTHING, seen, (SortKey("d", "date"),)) == ["b", "c", "a"]

    run(scenario)


def test_second_sort_key_breaks_ties_of_the_first(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *SORTED)
        for limit in (1, 2, 5, 9):
            sort = (SortKey("d", "date", True), SortKey("_id", "token"))
            assert await walk(store, EVERYTHING, ANYONE, sort, limit) == ["many", "also", "two", "one", "none", "veiled"]
            sort = (SortKey("s", "string"), SortKey("t", "token", True))
            assert await walk(store, EVERYTHING, ANYONE, sort, limit) == ["one", "two", "also", "many", "none", "veiled"]

    run(scenario)


@pytest.mark.parametrize("sort", [(), (SortKey("d", "date"),), (SortKey("d", "date", True), SortKey("t", "token"))])
@pytest.mark.parametrize("where", [EVERYTHING, Has("t", TokenIs("s", "x"))])
@pytest.mark.parametrize("limit", [1, 3, 7])
def test_pages_contain_each_row_once_despite_writes_between_them(
    run: RunScenario, sort: tuple[SortKey, ...], where: Filter, limit: int
) -> None:
    async def scenario(store: Store) -> None:
        def rows(name: str, **more: Any) -> list[Any]:
            return [
                record(
                    f"{name}{n}",
                    "p1",
                    "p2" if n % 2 else "p3",
                    entries=[token("t", "x"), *([date("d", n % 4)] if n % 5 else [])],
                    **more,
                )
                for n in range(12)
            ]

        before = rows("r")
        await put(store, *before)
        written = 0

        async def between(shown: tuple[Row, ...]) -> None:
            nonlocal written
            written += 1
            if written < 6:
                new = [record(f"new{written}-{n}", "p1", entries=[token("t", "x"), date("d", n)]) for n in range(3)]
                hidden = [record(f"hidden{written}-{n}", "p1", class_id=2, entries=[token("t", "x")]) for n in range(3)]
                await put(store, *new, *hidden)

        seen = visibility(clause("p1"), clause("p2"))
        first = await found(store, where, seen, sort)
        walked = await walk(store, where, seen, sort, limit, between)
        assert [id for id in walked if id.startswith("r")] == first
        assert len(first) == 12
        assert len(walked) == len(set(walked))
        assert not any(id.startswith("hidden") for id in walked)

    run(scenario)


def test_store_position_of_hidden_row_fails_like_an_unknown_one(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *(record(id, "p1") for id in ("a", "b", "c")))
        await put(store, record("b", "p1", version=2, class_id=2), record("elsewhere", "p9"))
        await drop(store, "c")
        texts = set()
        for id in ("b", "c", "never", "elsewhere"):
            async with store.snapshot() as snapshot:
                with pytest.raises(Problem) as refused:
                    await snapshot.find(OBS, EVERYTHING, visibility(clause("p1")), limit=5, after=Position((), id))
                texts.add((refused.value.kind, str(refused.value)))
                with pytest.raises(Problem):
                    await snapshot.find(OBS, EVERYTHING, visibility(clause("p1")), limit=5, after=Position((1,), "a"))
                assert (await snapshot.find(OBS, EVERYTHING, visibility(clause("p1")), limit=5, after=Position((), "a"))).rows == ()
        assert len(texts) == 1
        assert texts.pop()[0] == "invalid"

    run(scenario)


def test_position_contains_only_sort_values_and_id(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *SORTED)
        async with store.snapshot() as snapshot:
            page = await snapshot.find(OBS, EVERYTHING, ANYONE, sort=(SortKey("d", "date", True), SortKey("s", "string")), limit=1)
        assert page.next == Position((20, None), "many")

    run(scenario)
