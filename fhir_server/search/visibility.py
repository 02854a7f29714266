"""What a caller may see, in the condition language: windows onto the store, and the entries seen through them.

A Visibility is the only form in which a permission reaches a store.  It is a union of windows; the empty Visibility
sees nothing.  Time enters as ``now`` alone, so a birthday or a release changes answers without a write.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from fhir_server.jsontext import Path
from fhir_server.search.filters import EVERYTHING, Filter

Scalar = str | int | float | None


class Entry(msgspec.Struct, frozen=True):
    """One index entry: a value that search parameter ``param`` extracts from the element at ``path``.

    ``kind`` fixes the shape of ``value``:
    token (system or "", code or "") . reference (target,) . string (folded, exact) . date (lo, hi) in
    microseconds, half open . quantity (number, system or "", code or "", unit text or "").
    Parameters of type ``uri`` are kind reference, of type ``number`` kind quantity with empty units.
    """

    param: str
    kind: str
    value: tuple[Scalar, ...]
    path: Path = ()
    class_id: int = 0


@dataclass(frozen=True, slots=True)
class VisibilityClause:
    """Rows of ``patients`` (None: any row, even of no patient) whose class is in ``classes`` and that meet ``where``.

    ``released`` leaves out rows whose release instant lies after ``now``.  An element, and an index entry
    made from it, is seen through a window only if its own class is in ``classes`` too.
    """

    patients: frozenset[str] | None
    classes: frozenset[int]
    released_only: bool = True
    where: Filter = EVERYTHING


@dataclass(frozen=True, slots=True)
class Visibility:
    """Everything a caller may see of one resource type: a union of windows at the instant ``now`` (microseconds)."""

    clauses: tuple[VisibilityClause, ...] = ()
    now: int = 0

    @classmethod
    def unrestricted(cls, class_count: int, now: int = 0) -> Visibility:
        """Return the Visibility that admits every row and element, released or not.

        ``class_count`` is the number of visibility classes.  Only for work of the server itself and of its operator, never
        for an answer to a caller: tests/project/test_unrestricted_visibility.py lists the functions that may call this.
        """
        return cls((VisibilityClause(None, frozenset(range(class_count)), released_only=False),), now)

    @property
    def limited_to_patients(self) -> bool:
        """Whether it shows rows of named patients only; such answers are ordered by when rows were stored, and nothing else."""
        return all(clause.patients is not None for clause in self.clauses)


@dataclass(frozen=True, slots=True)
class SearchableRow:
    """A row as conditions see it; the reference meaning and the tests of stores work on these.

    ``place``: the number of its first patient, and when it was stored (:mod:`fhir_server.store.row_order`).
    """

    type: str
    id: str
    patients: tuple[str, ...]
    class_id: int
    release_at: int
    entries: tuple[Entry, ...] = ()
    place: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class SortKey:
    """Sort by the least (ascending) or greatest (descending) admitted value of ``param``; rows without one come last.

    ``kind`` as in Entry.  ``_id`` and ``_lastUpdated`` are ordinary parameters here.
    """

    param: str
    kind: str
    descending: bool = False


class Position(msgspec.Struct, frozen=True):
    """Where a page ended: the sort values and logical id of its last row; holds nothing the caller did not see."""

    keys: tuple[Scalar, ...]
    id: str


STALE_LINK = "The page link is not valid, or not any more: run the search again."
