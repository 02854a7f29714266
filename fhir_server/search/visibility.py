"""Visibility: what one caller may see of one resource type, in the condition language.

A Visibility is the only form in which a permission reaches a store.  It is a union of clauses, and the empty one shows
nothing.  Time enters only as ``now``, so a birthday or a release changes answers without a write.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fhir_server.search.filters import EVERYTHING, AllOf, Filter


@dataclass(frozen=True, slots=True)
class VisibilityClause:
    """The rows of ``patients`` (None: any row, also of no patient) whose class is in ``classes`` and that match ``where``.

    ``released_only`` excludes rows whose release is later than ``now``.  A labeled element, and an index entry made from it, is
    visible through a clause only if its own class is in ``classes`` too.
    """

    patients: frozenset[str] | None
    classes: frozenset[int]
    released_only: bool = True
    where: Filter = EVERYTHING


@dataclass(frozen=True, slots=True)
class Visibility:
    """All that a caller may see of one resource type at the instant ``now`` (microseconds): the union of ``clauses``."""

    clauses: tuple[VisibilityClause, ...] = ()
    now: int = 0

    @classmethod
    def unrestricted(cls, class_count: int, now: int = 0) -> Visibility:
        """Return the Visibility that admits every row and element, released or not.

        ``class_count`` is the number of visibility classes.  Only for work of the server itself and of its operator, never
        for an answer to a caller: tests/project/test_unrestricted_visibility.py lists the functions that may call this.
        """
        return cls((VisibilityClause(None, frozenset(range(class_count)), released_only=False),), now)

    def limited_to(self, where: Filter) -> Visibility:
        """What it shows of the rows that meet a condition."""
        narrowed = [replace(clause, where=AllOf((where, clause.where))) for clause in self.clauses]
        return Visibility(tuple(narrowed), self.now)

    @property
    def limited_to_patients(self) -> bool:
        """Whether it shows rows of named patients only; such results are ordered by the time of storing alone."""
        return all(clause.patients is not None for clause in self.clauses)
