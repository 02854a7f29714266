"""The meaning of the condition language, in memory.  A store is right when it agrees with this file.

Nothing here looks at an entry whose class is not admitted, so what is hidden cannot change an answer, an
order or a page (http://hl7.org/fhir/R4/search.html gives the prefixes' meaning on intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cmp_to_key

from fhir_server.errors import Problem
from fhir_server.search.filters import (
    AllOf,
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    Not,
    OfPatient,
    Predicate,
    Present,
    QuantityIs,
    RefersTo,
    TextIs,
    TokenIs,
)
from fhir_server.search.rows import STALE_LINK, Entry, Position, Scalar, SearchableRow, SortKey
from fhir_server.search.visibility import Visibility, VisibilityClause

Classes = frozenset[int]

_KIND: dict[type, str] = {TokenIs: "token", RefersTo: "reference", TextIs: "string", DateIs: "date", QuantityIs: "quantity"}


def matches(filter: Filter, row: SearchableRow, classes: Classes) -> bool:
    """Whether the row meets the condition when only entries of these classes exist.  Raises TypeError for an unknown node."""
    match filter:
        case Has(param, test):
            kind = _KIND.get(type(test))
            if kind is None:
                raise TypeError(f"not a test: {test!r}")
            return any(e.kind == kind and _passes(test, e) for e in _entries(row, param, classes))
        case Present(param):
            return any(True for _ in _entries(row, param, classes))
        case IdIs(ids):
            return row.id in ids
        case OfPatient(patients):
            return not patients.isdisjoint(row.patients)
        case AllOf(parts):
            return all(_each(parts, row, classes))
        case AnyOf(parts):
            return any(_each(parts, row, classes))
        case Not(part):
            return not matches(part, row, classes)
    raise TypeError(f"not a condition: {filter!r}")


def _each(parts: tuple[Filter, ...], row: SearchableRow, classes: Classes) -> list[bool]:
    # All of them, even once the answer is known: an unknown node must not hide behind the first part.
    return [matches(part, row, classes) for part in parts]


def is_visible(visibility: Visibility, row: SearchableRow) -> bool:
    """Whether some window shows the row."""
    return any(_clause_shows(clause, visibility.now, row) for clause in visibility.clauses)


def matches_visible(visibility: Visibility, row: SearchableRow, where: Filter) -> bool:
    """Whether some window shows the row and ``where`` holds for what that same window shows of it."""
    return any(_clause_shows(clause, visibility.now, row) and matches(where, row, clause.classes) for clause in visibility.clauses)


def search(
    rows: Sequence[SearchableRow],
    type: str,
    where: Filter,
    visibility: Visibility,
    *,
    sort: tuple[SortKey, ...] = (),
    limit: int | None = None,
    after: Position | None = None,
) -> tuple[SearchableRow, ...]:
    """The rows of ``type`` that answer, ordered by ``sort`` and then by place; rows of one place as in ``rows``.

    A bounded sight's places are when rows were stored, whoever is the first of their patients: which may be one out of
    view.  ``after`` leaves those strictly behind that position: behind its keys or, with equal keys, behind its row's
    place.  Raises Problem ``invalid`` if the sight does not (any longer) admit that row: deleted and withheld alike.
    """
    numbers = {row.id: number for number, row in enumerate(rows) if row.type == type}
    compare = _comparison(sort)

    def place(number: int) -> _Place:
        return (*rows[number].place[1 if visibility.limited_to_patients else 0 :], number)

    found = [
        (sort_values(sort, visibility, rows[one]), place(one)) for one in numbers.values() if matches_visible(visibility, rows[one], where)
    ]
    if after is not None:
        number = numbers.get(after.id)
        if number is None or len(after.keys) != len(sort) or not is_visible(visibility, rows[number]):
            raise Problem("invalid", STALE_LINK)
        found = [item for item in found if compare(item, (after.keys, place(number))) > 0]
    found.sort(key=cmp_to_key(compare))
    return tuple(rows[of[-1]] for _, of in found[:limit])


def sort_values(sort: tuple[SortKey, ...], visibility: Visibility, row: SearchableRow) -> tuple[Scalar, ...]:
    """The row's sort values, None where it has none: what a Position after this row holds."""
    classes: Classes = frozenset().union(*(w.classes for w in visibility.clauses if _clause_shows(w, visibility.now, row)))
    return tuple(_sort_value(key, row, classes) for key in sort)


def _clause_shows(clause: VisibilityClause, now: int, row: SearchableRow) -> bool:
    return (
        row.class_id in clause.classes
        and (clause.patients is None or not clause.patients.isdisjoint(row.patients))
        and (not clause.released_only or row.release_at <= now)
        and matches(clause.where, row, clause.classes)
    )


def _entries(row: SearchableRow, param: str, classes: Classes) -> Iterable[Entry]:
    return (entry for entry in row.entries if entry.param == param and entry.class_id in classes)


def _passes(test: Predicate, entry: Entry) -> bool:
    match test:
        case TokenIs(system, code):
            return system in (None, entry.value[0]) and code in (None, entry.value[1])
        case RefersTo(targets):
            return entry.value[0] in targets
        case TextIs(value, mode):
            folded, exact = str(entry.value[0]), entry.value[1]
            return exact == value if mode == "exact" else folded.startswith(value) if mode == "prefix" else value in folded
        case DateIs():
            return _DATE[test.prefix](test, *entry.value)
        case QuantityIs():
            return _unit(test, entry) and _NUMBER[test.prefix](test, entry.value[0])


def _unit(test: QuantityIs, entry: Entry) -> bool:
    _, system, code, unit = entry.value
    if test.system is None:
        return test.unit is None or test.unit in (code, unit)
    return test.system == system and test.unit in (None, code)


def _within(test: DateIs, lo: int, hi: int) -> bool:
    return test.lo <= lo and hi <= test.hi


_DATE: dict[str, Callable[..., bool]] = {
    "eq": _within,
    "ne": lambda q, lo, hi: not _within(q, lo, hi),
    "gt": lambda q, lo, hi: hi > q.hi,
    "lt": lambda q, lo, hi: lo < q.lo,
    "ge": lambda q, lo, hi: hi > q.hi or _within(q, lo, hi),
    "le": lambda q, lo, hi: lo < q.lo or _within(q, lo, hi),
    "sa": lambda q, lo, hi: lo >= q.hi,
    "eb": lambda q, lo, hi: hi <= q.lo,
    "ap": lambda q, lo, hi: lo < q.hi and q.lo < hi,
}


def _in_range(test: QuantityIs, number: float) -> bool:
    return number == test.lo if test.lo == test.hi else test.lo <= number < test.hi


_NUMBER: dict[str, Callable[..., bool]] = {
    "eq": _in_range,
    "ne": lambda q, n: not _in_range(q, n),
    "gt": lambda q, n: n > q.value,
    "lt": lambda q, n: n < q.value,
    "ge": lambda q, n: n >= q.value,
    "le": lambda q, n: n <= q.value,
    "sa": lambda q, n: n > q.value,
    "eb": lambda q, n: n < q.value,
    "ap": lambda q, n: q.lo <= n <= q.hi,
}


def _sort_value(key: SortKey, row: SearchableRow, classes: Classes) -> Scalar:
    if key.param == "_id":
        return row.id
    place = {"token": 1, "date": 1 if key.descending else 0}.get(key.kind, 0)
    values = [entry.value[place] for entry in _entries(row, key.param, classes) if entry.kind == key.kind]
    if not values:
        return None
    return max(values) if key.descending else min(values)  # type: ignore[type-var]  # of one kind, so of one type


_Place = tuple[int, ...]
_Item = tuple[tuple[Scalar, ...], _Place]


def _comparison(sort: tuple[SortKey, ...]) -> Callable[[_Item, _Item], int]:
    def compare(left: _Item, right: _Item) -> int:
        for key, a, b in zip(sort, left[0], right[0], strict=True):
            if a == b:
                continue
            if a is None or b is None:
                return 1 if a is None else -1
            return -1 if (a < b) != key.descending else 1  # type: ignore[operator]
        return (left[1] > right[1]) - (left[1] < right[1])

    return compare
