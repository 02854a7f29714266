"""What a caller may see, in the condition language, and the rows and index entries to which it applies.

A :class:`Visibility` is the only form in which permissions reach a store. It is a union of clauses; without clauses, nothing is
visible. Time enters only as ``now``, so a birthday or a release changes answers without a write.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from fhir_server.jsontext import Path
from fhir_server.search.filters import EVERYTHING, Filter

Scalar = str | int | float | None


class Entry(msgspec.Struct, frozen=True):
    """One index entry: the value that search parameter ``param`` extracts from the element at ``path``.

    ``kind`` fixes the shape of ``value``:
    token (system or "", code or ""); reference (target,); string (folded, exact); date (lo, hi) in microseconds,
    half open; quantity (number, system or "", code or "", unit text or "").
    Parameters of type ``uri`` have the kind reference, those of type ``number`` the kind quantity with empty units.
    """

    param: str
    kind: str
    value: tuple[Scalar, ...]
    path: Path = ()
    class_id: int = 0


@dataclass(frozen=True, slots=True)
class VisibilityClause:
    """Rows of ``patients`` (None: all rows, also those of no patient) whose class is in ``classes`` and that match ``where``.

    ``released_only`` excludes rows whose release date is after ``now``. A clause admits an element, and an index entry of it, only if
    the class of the element is in ``classes``, too.
    """

    patients: frozenset[str] | None
    classes: frozenset[int]
    released_only: bool = True
    where: Filter = EVERYTHING


@dataclass(frozen=True, slots=True)
class Visibility:
    """Everything a caller may see of one resource type: a union of clauses at the instant ``now`` (microseconds)."""

    clauses: tuple[VisibilityClause, ...] = ()
    now: int = 0

    @property
    def limited_to_patients(self) -> bool:
        """Whether every clause is limited to patients; results are then ordered by the time of storing alone."""
        return all(clause.patients is not None for clause in self.clauses)


@dataclass(frozen=True, slots=True)
class SearchableRow:
    """A row as conditions apply to it; :mod:`fhir_server.search.match` and tests of the stores use it.

    ``place`` is the number of its first patient, and when it was stored (:mod:`fhir_server.store.row_order`).
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
    """Sort by the least (ascending) or greatest (descending) admitted value of ``param``; rows without a value come last.

    ``kind`` as in Entry.  ``_id`` and ``_lastUpdated`` are ordinary parameters here.
    """

    param: str
    kind: str
    descending: bool = False


class Position(msgspec.Struct, frozen=True):
    """The end of a page: the sort values and the logical id of its last row, both visible to the caller."""

    keys: tuple[Scalar, ...]
    id: str


STALE_LINK = "The page link is invalid or has expired. Run the search again."
