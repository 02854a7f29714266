"""Every node of the condition language and every prefix: rows that must be found, and rows that must not."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.errors import Problem
from fhir_server.search.filters import (
    EVERYTHING,
    NOTHING,
    AllOf,
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    Not,
    OfPatient,
    Present,
    QuantityIs,
    RefersTo,
    TextIs,
    TokenIs,
    UnderUrl,
)
from fhir_server.store import Store
from tests.store.conftest import RunScenario
from tests.store.samples import ALL, ANYONE, OBS, clause, date, found, put, quantity, record, reference, string, token, visibility

ROWS = (
    record("a", "p1", entries=[token("code", "x"), string("name", "Ab"), reference("of", "Patient/1")]),
    record("b", "p1", entries=[token("code", "x", ""), string("name", "aB\U0010ffffc"), reference("of", "Patient/2")]),
    record("c", "p1", "p2", entries=[token("code", "y"), string("name", "ba"), reference("of", "urn:x")]),
    record("d", "p1", entries=[token("code", "x", "t"), token("code", "y", class_id=3), reference("of", "Patient/1", class_id=2)]),
    record("e", "p1", class_id=1),
    record("hidden", "p1", class_id=2, entries=[token("code", "x"), string("name", "ab"), reference("of", "Patient/1")]),
)


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (EVERYTHING, "abcde"),
        (NOTHING, ""),
        (Has("code", TokenIs("s", "x")), "a"),
        (Has("code", TokenIs("", "x")), "b"),
        (Has("code", TokenIs(None, "x")), "abd"),
        (Has("code", TokenIs("s", None)), "ac"),
        (Has("code", TokenIs(None, None)), "abcd"),
        (Has("code", TokenIs("never", "x")), ""),
        (Has("never", TokenIs(None, None)), ""),
        (Has("code", TokenIs("s", "y")), "c"),
        (Has("of", RefersTo(frozenset({"Patient/1"}))), "a"),
        (Has("of", RefersTo(frozenset({"Patient/1", "urn:x", "none"}))), "ac"),
        (Has("of", RefersTo(frozenset())), ""),
        (Has("of", RefersTo(frozenset({"Patient/1", "urn:\0", "\0"}))), "a"),
        (Has("of", RefersTo(frozenset({"urn:\0"}))), ""),
        (IdIs(frozenset({"a", "b\0", "\0"})), "a"),
        (IdIs(frozenset({"\0"})), ""),
        (Has("of", UnderUrl("urn")), ""),
        (Has("of", UnderUrl("Patient")), "ab"),
        (Has("of", UnderUrl("Patient/1")), "a"),
        (Has("name", TextIs("ab", "prefix")), "ab"),
        (Has("name", TextIs("ab\U0010ffff", "prefix")), "b"),
        (Has("name", TextIs("", "prefix")), "abc"),
        (Has("name", TextIs("Ab", "exact")), "a"),
        (Has("name", TextIs("ab", "exact")), ""),
        (Has("name", TextIs("b", "contains")), "abc"),
        (Has("name", TextIs("ba", "contains")), "c"),
        (Has("name", TextIs("", "contains")), "abc"),
        (Present("name", "string"), "abc"),
        (Present("never", "token"), ""),
        (Not(Present("code", "token")), "e"),
        (Not(Has("code", TokenIs(None, "y"))), "abde"),
        (Not(Has("never", TokenIs(None, "y"))), "abcde"),
        (Not(NOTHING), "abcde"),
        (IdIs(frozenset({"a", "hidden", "never"})), "a"),
        (IdIs(frozenset()), ""),
        (Not(IdIs(frozenset({"a"}))), "bcde"),
        (OfPatient(frozenset({"p2"})), "c"),
        (OfPatient(frozenset({"p1", "p2"})), "abcde"),
        (OfPatient(frozenset({"unknown"})), ""),
        (Not(OfPatient(frozenset({"p2"}))), "abde"),
        (AllOf((Has("code", TokenIs(None, "x")), Has("name", TextIs("ab", "prefix")))), "ab"),
        (AllOf((Has("code", TokenIs(None, "x")), Not(Has("name", TextIs("ab", "prefix"))))), "d"),
        (AnyOf((Has("code", TokenIs("s", "y")), Has("of", RefersTo(frozenset({"Patient/1"}))))), "ac"),
        (AnyOf((Has("code", TokenIs("s", "x")), Has("code", TokenIs("", "x")), Has("code", TokenIs("never", "x")))), "ab"),
        (AnyOf((IdIs(frozenset({"e"})), OfPatient(frozenset({"p2"})))), "ce"),
        (AnyOf((*tuple(Has("code", TokenIs("s", f"n{n}")) for n in range(2000)), Has("code", TokenIs("s", "x")))), "a"),
    ],
)
@pytest.mark.parametrize("seen", [ANYONE, visibility(clause("p1")), visibility(clause("p1", "p2"))], ids=["anyone", "patient", "patients"])
def test_condition_finds_exactly_the_matching_rows(run: RunScenario, where: Filter, ids: str, seen: Any) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *ROWS)
        assert sorted(await found(store, where, seen)) == list(ids)

    run(scenario)


# [lo, hi) of entries, named by their position relative to the query interval [5, 9)
DATES = {
    "before": (0, 4),
    "start": (2, 6),
    "within": (5, 7),
    "exact": (5, 9),
    "around": (3, 12),
    "end": (7, 11),
    "after": (9, 12),
}


@pytest.mark.parametrize(
    ("prefix", "ids"),
    [
        ("eq", {"within", "exact"}),
        ("ne", {"before", "start", "around", "end", "after"}),
        ("gt", {"around", "end", "after"}),
        ("lt", {"before", "start", "around"}),
        ("ge", {"within", "exact", "around", "end", "after"}),
        ("le", {"before", "start", "within", "exact", "around"}),
        ("sa", {"after"}),
        ("eb", {"before"}),
        ("ap", {"start", "within", "exact", "around", "end"}),
    ],
)
@pytest.mark.parametrize("seen", [ANYONE, visibility(clause("p1"))], ids=["anyone", "patient"])
def test_dates_are_compared_as_intervals(run: RunScenario, prefix: Any, ids: set[str], seen: Any) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *(record(id, "p1", entries=[date("when", lo, hi)]) for id, (lo, hi) in DATES.items()), record("none", "p1"))
        assert set(await found(store, Has("when", DateIs(prefix, 5, 9)), seen)) == ids

    run(scenario)


@pytest.mark.parametrize(
    ("prefix", "ids"),
    [
        ("eq", {"low", "value"}),
        ("ne", {"below", "high", "above"}),
        ("gt", {"high", "above"}),
        ("lt", {"below", "low"}),
        ("ge", {"value", "high", "above"}),
        ("le", {"below", "low", "value"}),
        ("sa", {"high", "above"}),
        ("eb", {"below", "low"}),
        ("ap", {"low", "value", "high"}),
    ],
)
@pytest.mark.parametrize("seen", [ANYONE, visibility(clause("p1"))], ids=["anyone", "patient"])
def test_numbers_are_compared_by_their_prefix(run: RunScenario, prefix: Any, ids: set[str], seen: Any) -> None:
    numbers = {"below": 1, "low": 1.5, "value": 2, "high": 2.5, "above": 3}

    async def scenario(store: Store) -> None:
        await put(store, *(record(id, "p1", entries=[quantity("n", number)]) for id, number in numbers.items()))
        assert set(await found(store, Has("n", QuantityIs(prefix, 1.5, 2.5, 2)), seen)) == ids

    run(scenario)


@pytest.mark.parametrize(
    ("system", "unit", "ids"),
    [
        (None, None, {"coded", "worded", "other"}),
        (None, "mg", {"coded", "worded"}),
        ("ucum", "mg", {"coded"}),
        ("ucum", None, {"coded", "other"}),
        ("", "mg", set()),
        ("never", "mg", set()),
    ],
)
def test_units_are_compared_only_if_given(run: RunScenario, system: str | None, unit: str | None, ids: set[str]) -> None:
    async def scenario(store: Store) -> None:
        await put(
            store,
            record("coded", entries=[quantity("n", 5, "ucum", "mg", "milligram")]),
            record("worded", entries=[quantity("n", 5, "", "", "mg")]),
            record("other", entries=[quantity("n", 5, "ucum", "g", "gram")]),
        )
        assert set(await found(store, Has("n", QuantityIs("eq", 5, 5, 5, system, unit)))) == ids

    run(scenario)


def test_entry_of_hidden_class_affects_neither_match_nor_negation(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, record("a", entries=[token("code", "x", class_id=3)]), record("b", entries=[token("code", "x")]))
        for where, seen, ids in (
            (Has("code", TokenIs("s", "x")), ANYONE, ["b"]),
            (Has("code", TokenIs("s", "x")), ALL, ["a", "b"]),
            (Not(Has("code", TokenIs("s", "x"))), ANYONE, ["a"]),
            (Not(Has("code", TokenIs("s", "x"))), ALL, []),
            (Present("code", "token"), ANYONE, ["b"]),
            (Not(Present("code", "token")), ANYONE, ["a"]),
        ):
            assert await found(store, where, seen) == ids

    run(scenario)


def test_classes_of_one_clause_do_not_apply_to_rows_of_another(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *(record(f"r{p}", p, entries=[token("code", "x", class_id=3)]) for p in ("p1", "p2")))
        seen = visibility(clause("p1", classes={0, 3}), clause("p2", classes={0}))
        assert await found(store, Has("code", TokenIs("s", "x")), seen) == ["rp1"]
        assert await found(store, Not(Has("code", TokenIs("s", "x"))), seen) == ["rp2"]

    run(scenario)


def test_clause_can_name_more_patients_than_rows(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *(record(f"r{n}", f"p{n}", entries=[token("code", "x")]) for n in range(40)))
        await put(store, record("shared", "else", "p1", entries=[token("code", "x")]), record("out", "else"))
        many = visibility(clause(*(f"p{n}" for n in range(1, 3000))))
        for where in (EVERYTHING, Has("code", TokenIs("s", "x"))):
            assert set(await found(store, where, many)) == {*(f"r{n}" for n in range(1, 40)), "shared"}

    run(scenario)


@pytest.mark.parametrize("where", ["text", Not("text"), AnyOf((EVERYTHING, None)), AllOf((NOTHING, 1)), Has("code", "x")])  # type: ignore[arg-type]
def test_store_raises_type_error_for_unknown_filter_node(run: RunScenario, where: Any) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *ROWS)
        async with store.snapshot() as snapshot:
            with pytest.raises(TypeError):
                await snapshot.find(OBS, where, ANYONE, limit=10)
            with pytest.raises(TypeError):
                await snapshot.count(OBS, EVERYTHING, visibility(clause(where=where)))

    run(scenario)


def test_find_returns_no_more_rows_than_the_limit(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(store, *ROWS)
        async with store.snapshot() as snapshot:
            assert (await snapshot.find(OBS, EVERYTHING, ANYONE, limit=0)).rows == ()
            page = await snapshot.find(OBS, EVERYTHING, ANYONE, limit=5)
            assert len(page.rows) == 5
            assert page.next is None
            assert (await snapshot.find(OBS, EVERYTHING, ANYONE, limit=4)).next is not None
            with pytest.raises(Problem):
                await snapshot.find(
                    OBS, EVERYTHING, ANYONE, limit=4, after=(await snapshot.find(OBS, EVERYTHING, ALL, limit=6)).next or _gone()
                )

    run(scenario)


def _gone() -> Any:
    from fhir_server.search.rows import Position

    return Position((), "hidden")
