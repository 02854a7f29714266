"""The semantics of the condition language: properties on random rows, and examples for each predicate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Prefix,
    Present,
    QuantityIs,
    RefersTo,
    TextIs,
    TokenIs,
)
from fhir_server.search.match import is_visible, matches, matches_visible, search, sort_values
from fhir_server.search.rows import Entry, Position, SearchableRow, SortKey
from fhir_server.search.visibility import Visibility, VisibilityClause

PARAMS = {"t": "token", "r": "reference", "s": "string", "d": "date", "q": "quantity"}
PATIENTS = ("p1", "p2")
CLASSES = (0, 1, 2)

words = st.sampled_from(["", "a", "b", "ab"])
numbers = st.integers(0, 6)
PREFIXES: tuple[Prefix, ...] = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
prefixes = st.sampled_from(PREFIXES)
intervals = st.tuples(numbers, st.integers(1, 3)).map(lambda pair: (pair[0], pair[0] + pair[1]))
values: dict[str, st.SearchStrategy[tuple[Any, ...]]] = {
    "token": st.tuples(words, words),
    "reference": st.tuples(words),
    "string": words.map(lambda word: (word, word.upper())),
    "date": intervals,
    "quantity": st.tuples(numbers.map(float), words, words, words),
}
tests: dict[str, st.SearchStrategy[Any]] = {
    "t": st.builds(TokenIs, st.none() | words, st.none() | words),
    "r": st.builds(RefersTo, st.frozensets(words)),
    "s": st.builds(TextIs, words, st.sampled_from(["prefix", "exact", "contains"])),
    "d": st.tuples(prefixes, intervals).map(lambda pair: DateIs(pair[0], *pair[1])),
    "q": st.tuples(prefixes, intervals, st.none() | words, st.none() | words).map(
        lambda t: QuantityIs(t[0], float(t[1][0]), float(t[1][1]), float(t[1][0]), t[2], t[3])
    ),
}
classes = st.frozensets(st.sampled_from(CLASSES))


def entries(param: str) -> st.SearchStrategy[Entry]:
    kind = PARAMS[param]
    return st.tuples(values[kind], st.sampled_from(CLASSES)).map(lambda made: Entry(param, kind, made[0], (), made[1]))


leaves = st.one_of(
    *(st.builds(Has, st.just(param), test) for param, test in tests.items()),
    st.sampled_from(sorted(PARAMS.items())).map(lambda param: Present(*param)),
    st.frozensets(st.sampled_from(["0", "1", "2"])).map(IdIs),
    st.frozensets(st.sampled_from(PATIENTS)).map(OfPatient),
)
filters: st.SearchStrategy[Filter] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, max_size=3).map(lambda parts: AllOf(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
    ),
    max_leaves=6,
)
rows = st.builds(
    SearchableRow,
    st.just("T"),
    st.sampled_from(["0", "1", "2"]),
    st.lists(st.sampled_from(PATIENTS), unique=True).map(tuple),
    st.sampled_from(CLASSES),
    st.integers(0, 2),
    st.lists(st.one_of(*map(entries, PARAMS)), max_size=6).map(tuple),
)
worlds = st.lists(rows, max_size=5).map(lambda found: [replace(row, id=str(i)) for i, row in enumerate(found)])
clauses = st.builds(VisibilityClause, st.none() | st.frozensets(st.sampled_from(PATIENTS)), classes, st.booleans(), filters)
visibilities = st.builds(Visibility, st.lists(clauses, max_size=3).map(tuple), st.integers(0, 2))
sort_keys = st.sampled_from([*PARAMS.items(), ("_id", "token")])
one_sort = st.tuples(sort_keys, st.booleans()).map(lambda made: SortKey(made[0][0], made[0][1], made[1]))
sorts = st.lists(one_sort, max_size=2).map(tuple)


@given(filters, filters, rows, classes)
def test_filters_follow_boolean_algebra(left: Filter, right: Filter, row: SearchableRow, seen: frozenset[int]) -> None:
    a, b = matches(left, row, seen), matches(right, row, seen)
    assert matches(Not(left), row, seen) is not a
    assert matches(AllOf((left, right)), row, seen) is (a and b)
    assert matches(AnyOf((left, right)), row, seen) is (a or b)
    assert matches(EVERYTHING, row, seen) is True
    assert matches(NOTHING, row, seen) is False


@given(worlds, filters, st.integers(0, 2))
def test_empty_visibility_matches_no_rows(world: list[SearchableRow], where: Filter, now: int) -> None:
    assert not any(is_visible(Visibility((), now), row) or matches_visible(Visibility((), now), row, where) for row in world)
    assert search(world, "T", where, Visibility((), now)) == ()


@given(rows, classes, st.sampled_from(CLASSES), st.none() | st.frozensets(st.sampled_from(PATIENTS)), st.booleans())
def test_adding_a_class_never_hides_rows(
    row: SearchableRow, seen: frozenset[int], more: int, patients: frozenset[str] | None, released: bool
) -> None:
    before, after = (Visibility((VisibilityClause(patients, found, released),), 1) for found in (seen, seen | {more}))
    assert not is_visible(before, row) or is_visible(after, row)


@given(rows, filters, visibilities, clauses)
def test_adding_a_clause_never_hides_rows(row: SearchableRow, where: Filter, visibility: Visibility, more: VisibilityClause) -> None:
    wider = replace(visibility, clauses=(*visibility.clauses, more))
    assert not is_visible(visibility, row) or is_visible(wider, row)
    assert not matches_visible(visibility, row, where) or matches_visible(wider, row, where)


@settings(max_examples=300)
@given(worlds, filters, visibilities, sorts, st.data())
def test_hidden_rows_and_entries_never_affect_results(
    world: list[SearchableRow], where: Filter, visibility: Visibility, sort: tuple[SortKey, ...], data: st.DataObject
) -> None:
    """Results do not change when hidden entries are added or removed, or when hidden rows are added."""
    seen = frozenset().union(*(clause.classes for clause in visibility.clauses))
    other = []
    for row in world:
        kept = tuple(entry for entry in row.entries if entry.class_id in seen)
        hidden = data.draw(st.lists(st.one_of(*map(entries, PARAMS)), max_size=3))
        other.append(replace(row, entries=(*(entry for entry in hidden if entry.class_id not in seen), *kept)))
    invisible = [replace(data.draw(rows), id=f"h{i}", class_id=9) for i in range(data.draw(st.integers(0, 2)))]
    one = [(row.id, sort_values(sort, visibility, row)) for row in search(world, "T", where, visibility, sort=sort)]
    two = [(row.id, sort_values(sort, visibility, row)) for row in search([*invisible, *other], "T", where, visibility, sort=sort)]
    assert one == two


@given(worlds, filters, visibilities, sorts, st.integers(1, 3))
def test_concatenated_pages_equal_the_full_result(
    world: list[SearchableRow], where: Filter, visibility: Visibility, sort: tuple[SortKey, ...], size: int
) -> None:
    whole = search(world, "T", where, visibility, sort=sort)
    assert {row.id for row in whole} == {row.id for row in world if matches_visible(visibility, row, where)}
    walked: list[SearchableRow] = []
    after = None
    while page := search(world, "T", where, visibility, sort=sort, limit=size, after=after):
        walked.extend(page)
        assert len(walked) <= len(whole)
        after = Position(sort_values(sort, visibility, page[-1]), page[-1].id)
    assert tuple(walked) == whole


def row(*found: Entry, id: str = "x", patients: tuple[str, ...] = ("p1",), class_id: int = 0, release_at: int = 0) -> SearchableRow:
    return SearchableRow("T", id, patients, class_id, release_at, found)


def test_same_clause_must_admit_the_row_and_the_matching_entry() -> None:
    found = row(Entry("t", "token", ("", "a"), (), 1))
    admitting, showing = VisibilityClause(None, frozenset({0})), VisibilityClause(None, frozenset({1}))
    where = Has("t", TokenIs(None, "a"))
    assert not matches_visible(Visibility((admitting, showing)), found, where)
    assert matches_visible(Visibility((admitting, showing)), found, Not(where))
    assert matches_visible(Visibility((VisibilityClause(None, frozenset({0, 1})),)), found, where)


def test_clause_limits_patients_classes_and_unreleased_rows() -> None:
    clause = VisibilityClause(frozenset({"p1"}), frozenset({0}))
    visibility = Visibility((clause,), now=5)
    assert is_visible(visibility, row(release_at=5))
    assert not is_visible(visibility, row(release_at=6))
    assert is_visible(Visibility((replace(clause, released_only=False),), 5), row(release_at=6))
    assert not is_visible(visibility, row(patients=("p2",)))
    assert not is_visible(visibility, row(patients=()))
    assert is_visible(Visibility((replace(clause, patients=None),), 5), row(patients=()))
    assert not is_visible(visibility, row(class_id=1))


BROKEN: Any = [object(), None, (Has, ("t", object())), (AnyOf, ((EVERYTHING, None),)), (AllOf, ((NOTHING, 1),)), (Not, ("x",))]


@pytest.mark.parametrize("broken", BROKEN)
def test_unknown_filter_node_raises_type_error(broken: Any) -> None:
    where = broken[0](*broken[1]) if isinstance(broken, tuple) else broken
    with pytest.raises(TypeError):
        matches(where, row(), frozenset({0}))


# An entry against the query interval [10, 20).
DATES = {
    (10, 20): {"eq", "ge", "le", "ap"},
    (12, 15): {"eq", "ge", "le", "ap"},
    (5, 25): {"ne", "gt", "lt", "ge", "le", "ap"},
    (5, 15): {"ne", "lt", "le", "ap"},
    (15, 25): {"ne", "gt", "ge", "ap"},
    (5, 10): {"ne", "lt", "le", "eb"},
    (20, 25): {"ne", "gt", "ge", "sa"},
    (10, 21): {"ne", "gt", "ge", "ap"},
    (9, 20): {"ne", "lt", "le", "ap"},
}


@pytest.mark.parametrize(("entry", "expected"), DATES.items())
def test_date_prefixes_follow_r4_interval_rules(entry: tuple[int, int], expected: set[str]) -> None:
    found = row(Entry("d", "date", entry))
    assert {prefix for prefix in PREFIXES if matches(Has("d", DateIs(prefix, 10, 20)), found, frozenset({0}))} == expected


# A number against 5.4, which covers [5.35, 5.45).
NUMBERS = {
    5.35: {"eq", "lt", "le", "eb", "ap"},
    5.4: {"eq", "ge", "le", "ap"},
    5.45: {"ne", "gt", "ge", "sa", "ap"},
    5.0: {"ne", "lt", "le", "eb"},
    6.0: {"ne", "gt", "ge", "sa"},
}


@pytest.mark.parametrize(("number", "expected"), NUMBERS.items())
def test_number_prefixes_follow_r4_precision_rules(number: float, expected: set[str]) -> None:
    found = row(Entry("q", "quantity", (number, "", "", "")))
    assert {p for p in PREFIXES if matches(Has("q", QuantityIs(p, 5.35, 5.45, 5.4)), found, frozenset({0}))} == expected


def test_zero_width_range_matches_its_exact_number() -> None:
    assert matches(Has("q", QuantityIs("eq", 2.0, 2.0, 2.0)), row(Entry("q", "quantity", (2.0, "", "", ""))), frozenset({0}))
    assert not matches(Has("q", QuantityIs("eq", 2.0, 2.0, 2.0)), row(Entry("q", "quantity", (2.1, "", "", ""))), frozenset({0}))


@pytest.mark.parametrize(
    ("system", "unit", "expected"),
    [
        (None, None, True),
        (None, "mg", True),
        (None, "milligram", True),
        (None, "g", False),
        ("u", "mg", True),
        ("u", "milligram", False),
        ("u", None, True),
        ("v", "mg", False),
    ],
)
def test_unit_matches_code_in_system_or_code_or_text_without_one(system: str, unit: str, expected: bool) -> None:
    found = row(Entry("q", "quantity", (1.0, "u", "mg", "milligram")))
    assert matches(Has("q", QuantityIs("eq", 1.0, 1.0, 1.0, system, unit)), found, frozenset({0})) is expected


def test_missing_sort_values_come_last_and_ties_keep_stored_order() -> None:
    world = [
        row(id="none"),
        row(Entry("d", "date", (1, 9)), id="wide"),
        row(Entry("d", "date", (2, 3)), Entry("d", "date", (5, 6)), id="two"),
        row(Entry("d", "date", (2, 9)), id="tie"),
        row(Entry("d", "date", (0, 99), (), 1), id="hidden value"),
    ]
    visibility = Visibility((VisibilityClause(None, frozenset({0})),))
    up = [found.id for found in search(world, "T", EVERYTHING, visibility, sort=(SortKey("d", "date"),))]
    down = [found.id for found in search(world, "T", EVERYTHING, visibility, sort=(SortKey("d", "date", True),))]
    assert up == ["wide", "two", "tie", "none", "hidden value"]
    assert down == ["wide", "tie", "two", "none", "hidden value"]


def test_rows_sort_only_by_entries_of_clauses_that_admit_them() -> None:
    one, five, eight = Entry("d", "date", (1, 2), (), 1), Entry("d", "date", (5, 6)), Entry("d", "date", (8, 9))
    world = [row(five, id="five"), row(one, eight, id="eight")]
    own, other = VisibilityClause(frozenset({"p1"}), frozenset({0})), VisibilityClause(frozenset({"p2"}), frozenset({0, 1}))
    sort = (SortKey("d", "date"),)
    assert [found.id for found in search(world, "T", EVERYTHING, Visibility((own, other)), sort=sort)] == ["five", "eight"]
    everyones = replace(other, patients=None)
    assert [found.id for found in search(world, "T", EVERYTHING, Visibility((own, everyones)), sort=sort)] == ["eight", "five"]


def test_position_at_missing_or_hidden_row_gives_the_same_error() -> None:
    visibility = Visibility((VisibilityClause(None, frozenset({0})),))
    texts = set()
    for world in ([row(id="a")], [row(id="a"), row(id="b", class_id=1)]):
        with pytest.raises(Problem) as refused:
            search(world, "T", EVERYTHING, visibility, after=Position((), "b"))
        texts.add((refused.value.kind, str(refused.value)))
    assert len(texts) == 1
    assert search([row(id="b"), row(id="a")], "T", EVERYTHING, visibility, after=Position((), "b")) == (row(id="a"),)


def test_position_round_trips_as_json() -> None:
    position = Position((1, 1.0, "a", None), "x")
    again = msgspec.json.decode(msgspec.json.encode(position), type=Position)
    assert again == position
    assert [type(key) for key in again.keys] == [int, float, str, type(None)]
