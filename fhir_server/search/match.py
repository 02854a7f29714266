"""Evaluates the condition language in memory.  It defines the meaning to which every store must conform.

No function reads an entry whose class is not admitted, so hidden data cannot change an answer, an order or a page.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cmp_to_key
from typing import Any, Protocol

from fhir_server.errors import Problem
from fhir_server.search.filters import AllOf, AnyOf, Filter, Has, IdIs, Not, OfPatient, Present, ReferredBy, RefersTo, RefersToMatch
from fhir_server.search.predicates import KIND, passes
from fhir_server.search.rows import STALE_LINK, Entry, Position, RowEntries, Scalar, SearchableRow, SortKey, SortStep
from fhir_server.search.visibility import Visibility, VisibilityClause

Classes = frozenset[int]


class OtherRows(Protocol):
    """The rows, visible or not, to which the steps of a condition lead."""

    def named(self, name: str) -> SearchableRow | None:
        """The row with this name (``Type/id``)."""

    def of_type(self, type: str) -> Iterable[SearchableRow]:
        """All rows of this type."""


def matches(filter: Filter, row: SearchableRow, classes: Classes, others: OtherRows | None = None) -> bool:
    """Whether the row matches the condition if only entries of these classes exist.

    Raises TypeError for an unknown node, and for a step without ``others``.
    """
    match filter:
        case Has(param, test):
            kind = KIND.get(type(test))
            if kind is None:
                raise TypeError(f"not a predicate: {test!r}")
            return any(e.kind == kind and passes(test, e) for e in _entries(row, param, classes))
        case Present(param, kind):
            return any(e.kind == kind for e in _entries(row, param, classes))
        case IdIs(ids):
            return row.id in ids
        case OfPatient(patients):
            return not patients.isdisjoint(row.patients)
        case AllOf(parts):
            return all(_each(parts, row, classes, others))
        case AnyOf(parts):
            return any(_each(parts, row, classes, others))
        case Not(part):
            return not matches(part, row, classes, others)
        case RefersToMatch(by_canonical=False) if others is not None:
            return any(_names_match(filter, entry, others) for entry in _entries(row, filter.param, classes))
        case ReferredBy(by_canonical=False) if others is not None:
            return any(_refers_and_matches(filter, other, f"{row.type}/{row.id}", others) for other in others.of_type(filter.type))
    raise TypeError(f"not a condition: {filter!r}")


def _each(parts: tuple[Filter, ...], row: SearchableRow, classes: Classes, others: OtherRows | None) -> list[bool]:
    # No short circuit: an unknown node must raise even if another part decides.
    return [matches(part, row, classes, others) for part in parts]


def _named(type: str, entry: Entry, others: OtherRows) -> SearchableRow | None:
    name = str(entry.value[0]) if entry.kind == "reference" else ""
    return others.named(name) if name.startswith(type + "/") else None


def _names_match(step: RefersToMatch, entry: Entry, others: OtherRows) -> bool:
    other = _named(step.type, entry, others)
    return other is not None and step.visibility is not None and matches_visible(step.visibility, other, step.where, others)


def _refers_and_matches(step: ReferredBy, other: SearchableRow, name: str, others: OtherRows) -> bool:
    visibility = step.visibility or Visibility()
    refers = Has(step.param, RefersTo(frozenset({name})))
    return matches_visible(visibility, other, AllOf((refers, step.where)), others)


def is_visible(visibility: Visibility, row: SearchableRow) -> bool:
    """Whether some clause admits the row."""
    return any(_clause_admits(clause, visibility.now, row) for clause in visibility.clauses)


def matches_visible(visibility: Visibility, row: SearchableRow, where: Filter, others: OtherRows | None = None) -> bool:
    """Whether some clause admits the row and ``where`` matches what the same clause admits of it."""
    return any(_clause_admits(clause, visibility.now, row) and matches(where, row, clause.classes, others) for clause in visibility.clauses)


def search(
    rows: Sequence[SearchableRow],
    type: str,
    where: Filter,
    visibility: Visibility,
    *,
    sort: tuple[SortKey, ...] = (),
    limit: int | None = None,
    after: Position | None = None,
    others: OtherRows | None = None,
) -> tuple[SearchableRow, ...]:
    """The matching rows of ``type``, ordered by ``sort``, then by place, then as in ``rows``.

    If the visibility is limited to patients, the place is only the time of storing: the first patient of a row may be hidden.
    ``after`` selects the rows after that position: greater sort values or, with equal ones, a later place. Raises Problem ``invalid``
    if the row of the position is deleted or not visible (any longer).  ``others``: the rows to which steps of ``where`` and of sort keys
    lead.
    """
    numbers = {row.id: number for number, row in enumerate(rows) if row.type == type}
    compare = comparison(sort)

    def place(number: int) -> _Place:
        return (*rows[number].place[1 if visibility.limited_to_patients else 0 :], number)

    items = [
        (sort_values(sort, visibility, rows[number], others), place(number))
        for number in numbers.values()
        if matches_visible(visibility, rows[number], where, others)
    ]
    if after is not None:
        number = numbers.get(after.id)
        if number is None or len(after.keys) != len(sort) or not is_visible(visibility, rows[number]):
            raise Problem("invalid", STALE_LINK)
        items = [item for item in items if compare(item, (after.keys, place(number))) > 0]
    items.sort(key=cmp_to_key(compare))
    return tuple(rows[row_place[-1]] for _, row_place in items[:limit])


def visible_entries(
    rows: Iterable[SearchableRow],
    where: Filter,
    visibility: Visibility,
    params: Collection[tuple[str, str]],
    others: OtherRows | None = None,
) -> tuple[RowEntries, ...]:
    """The visible entries of ``params``, (code, kind), of the rows that match: what the clauses admit by which they match."""
    found: dict[str, dict[Entry, None]] = {}
    for clause in visibility.clauses:
        for row in rows:
            if _clause_admits(clause, visibility.now, row) and matches(where, row, clause.classes, others):
                admitted = [entry for entry in row.entries if (entry.param, entry.kind) in params and entry.class_id in clause.classes]
                found.setdefault(row.id, {}).update(dict.fromkeys(Entry(entry.param, entry.kind, entry.value) for entry in admitted))
    return tuple(RowEntries(id, tuple(entries)) for id, entries in found.items())


def sort_values(
    sort: tuple[SortKey, ...], visibility: Visibility, row: SearchableRow, others: OtherRows | None = None
) -> tuple[Scalar, ...]:
    """The sort values of the row (None without a value), as a Position after this row holds them."""
    classes: Classes = frozenset().union(*(c.classes for c in visibility.clauses if _clause_admits(c, visibility.now, row)))
    return tuple(_sort_value(key, row, classes, others) for key in sort)


def _clause_admits(clause: VisibilityClause, now: int, row: SearchableRow) -> bool:
    return (
        row.class_id in clause.classes
        and (clause.patients is None or not clause.patients.isdisjoint(row.patients))
        and (not clause.released_only or row.release_at <= now)
        and matches(clause.where, row, clause.classes)
    )


def _entries(row: SearchableRow, param: str, classes: Classes) -> Iterable[Entry]:
    return (entry for entry in row.entries if entry.param == param and entry.class_id in classes)


def _sort_value(key: SortKey, row: SearchableRow, classes: Classes, others: OtherRows | None) -> Scalar:
    values: list[Any]  # of the same kind, so of the same type
    if key.steps:
        values = [value for step in key.steps for value in _values_through(step, row, classes, others) if value is not None]
    elif key.param == "_id":
        return row.id
    else:
        place = {"token": 1, "date": 1 if key.by_greatest else 0}.get(key.kind, 0)
        values = [entry.value[place] for entry in _entries(row, key.param, classes) if entry.kind == key.kind]
    if not values:
        return None
    best: Scalar = max(values) if key.by_greatest else min(values)
    return best


def _values_through(step: SortStep, row: SearchableRow, classes: Classes, others: OtherRows | None) -> Iterable[Scalar]:
    if others is None:
        raise TypeError(f"not a sort key here: {step!r}")
    for entry in _entries(row, step.param, classes):
        other = _named(step.type, entry, others)
        if other is not None and step.visibility is not None and is_visible(step.visibility, other):
            yield from sort_values((step.key,), step.visibility, other, others)


_Place = tuple[Any, ...]
_Item = tuple[tuple[Scalar, ...], _Place]


def comparison(sort: tuple[SortKey, ...]) -> Callable[[_Item, _Item], int]:
    """Return the function that compares two rows by their sort values, then by their places: negative if the first comes first."""

    def compare(left: _Item, right: _Item) -> int:
        for key, a, b in zip(sort, left[0], right[0], strict=True):
            if a == b:
                continue
            if a is None or b is None:
                return 1 if a is None else -1
            return -1 if (a < b) != key.descending else 1  # type: ignore[operator]
        return (left[1] > right[1]) - (left[1] < right[1])

    return compare
