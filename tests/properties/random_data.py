"""Random rows and conditions from small vocabularies, so that they often match."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from fhir_server.search.filters import (
    AllOf,
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    NearTo,
    Not,
    NumbersAre,
    OfPatient,
    Predicate,
    Present,
    QuantityIs,
    ReferredBy,
    RefersTo,
    RefersToMatch,
    TextIs,
    TokenIs,
    UnderUrl,
    WordIs,
)
from fhir_server.search.rows import Entry, SearchableRow, SortKey, SortStep
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store.row_order import patient_number

KINDS = ("token", "reference", "string", "date", "quantity", "words", "position")
PARAMS = {
    "token": ("code", "mixed"),
    "reference": ("subject", "link"),
    "string": ("name", "mixed"),
    "date": ("when",),
    "quantity": ("amount",),
    "words": ("content", "mixed"),
    "position": ("place",),
}
SYSTEMS, CODES = ("", "s1", "s2"), ("", "a", "b", "c")
TARGETS = ("Patient/p0", "Patient/p1", "urn:x", "http://y", "http://y/a", "http://y|1", "http://yy")
TEXTS = ("", "a", "b", "ab", "aba", "abb", "é", "\U0010ffff", "\U0010ffffz", "\ud7ff")
WORDS = ("a", "b", "ab", "aab", "é", "\U0010ffff", "1")
POINTS = ((0.6, 0.8, 0.0), (0.6, -0.8, 0.0), (0.0, 0.6, 0.8), (0.1, 0.7, 0.7), (0.0, 0.0, 1.0), (0.0, 0.0, -1.0))
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
UNITS = ((None, None), (None, None), (None, "a"), ("s1", "a"), ("s2", None), ("", "b"), ("s9", "a"))
PATIENTS = ("p0", "p1", "p2", "p3")
CLASSES = range(5)
_SORTED = tuple(kind for kind in KINDS if kind not in ("words", "position"))
SORTS = (*((param, kind) for kind in _SORTED for param in PARAMS[kind]), ("_id", "token"), ("none", "date"))


def id_of(number: int) -> str:
    """The id of a row.  In the order of ids, rows are not in the order in which they were stored."""
    return f"{number * 7 % 10}{number}"


class Chance(random.Random):
    """Random values from small vocabularies, so that conditions often match rows.

    ``types``: the types of rows, which refer to one another by the parameter ``link``; without them, no condition has a step.
    """

    types: tuple[str, ...] = ()

    def some(self, values: Any, most: int = 3) -> frozenset[Any]:
        return frozenset(self.choices(tuple(values), k=self.randint(0, most)))

    def value(self, kind: str) -> tuple[Any, ...]:
        if kind == "token":
            return self.choice(SYSTEMS), self.choice(CODES)
        if kind == "reference":
            return (self.choice(TARGETS),)
        if kind == "string":
            exact = self.choice(TEXTS)
            return exact.lower(), self.choice((exact, exact.upper()))
        if kind == "position":
            return self.choice(POINTS)
        if kind == "words":
            return (" " + " ".join(sorted({"", *self.some(WORDS, 4)})).strip() + " ",)
        if kind == "date":
            lo = self.randint(0, 8)
            return lo, lo + self.randint(1, 4)
        return self.choice((0, 0.5, 1, 1.5, -1)), self.choice(SYSTEMS), self.choice(("", "a")), self.choice(("", "a"))

    def entry(self) -> Entry:
        kind = self.choice(KINDS)
        param = self.choice(PARAMS[kind])
        value = (self.link(),) if param == "link" and self.types else self.value(kind)
        return Entry(param, kind, value, (), self.choice(CLASSES))

    def link(self) -> str:
        """The name of a row that may exist."""
        return f"{self.choice(self.types)}/{id_of(self.randint(0, 12))}"

    def row(self, type: str, number: int) -> SearchableRow:
        patients = tuple(dict.fromkeys(self.choices(PATIENTS[:3], k=self.choice((0, 1, 1, 1, 2)))))
        entries = tuple(self.entry() for _ in range(self.randint(0, 7)))
        if self.types:
            entries += tuple(Entry("link", "reference", (self.link(),), (), self.choice(CLASSES)) for _ in range(self.randint(0, 3)))
        return SearchableRow(type, id_of(number), patients, self.choice(CLASSES), self.choice((0, 0, 0, 5, 10)), entries)

    def test(self, kind: str) -> Predicate:
        if kind == "token":
            return TokenIs(self.choice((None, *SYSTEMS, "s9")), self.choice((None, *CODES)))
        if kind == "reference":
            return UnderUrl(self.choice(("http://y", "http://y/a", "http://"))) if self.random() < 0.3 else RefersTo(self.some(TARGETS))
        if kind == "string":
            return TextIs(self.choice(TEXTS), self.choice(("prefix", "exact", "contains", "equal")))
        if kind == "position" and self.random() < 0.4:
            return NumbersAre(self._number(), self._number())
        if kind == "position":
            return NearTo(*self.choice(POINTS), self.choice((0, 0.1, 0.15, 1, 1.2, 1.6, 2)))
        if kind == "words":
            return WordIs(self.choice(WORDS))
        if kind == "date":
            prefix: Any = self.choice(PREFIXES)
            lo = self.randint(0, 8)
            return DateIs(prefix, lo, lo + self.randint(1, 4))
        system, unit = self.choice(UNITS)
        return replace(self._number(), system=system, unit=unit)

    def _number(self) -> QuantityIs:
        prefix: Any = self.choice(PREFIXES)
        value = self.choice((0, 0.5, 1))
        return QuantityIs(prefix, value - self.choice((0, 0.5)), value + self.choice((0, 0.5)), value)

    def has(self) -> Has:
        kind = self.choice(KINDS)
        return Has(self.choice((*PARAMS[kind], *PARAMS[kind], "none")), self.test(kind))

    def present(self) -> Present:
        kind = self.choice(KINDS)
        return Present(self.choice((*PARAMS[kind], *PARAMS[kind], "none")), kind)

    def step(self, ids: list[str], depth: int) -> Filter:
        """A step to rows of any type, with a visibility of its own."""
        type, param = self.choice(self.types), self.choice(("link", "link", "link", "subject", "none"))
        where = self.filter(ids, depth - 1) if self.random() < 0.8 else AllOf(())
        visibility = self.visibility(ids) if self.random() < 0.95 else None
        if self.random() < 0.5:
            return RefersToMatch(param, type, where, visibility)
        return ReferredBy(type, param, where, visibility)

    def filter(self, ids: list[str], depth: int = 3, *, steps: bool = True) -> Filter:
        if steps and depth and self.types and self.random() < 0.15:
            return self.step(ids, depth)
        sort = self.randint(0, 11 if depth else 6)
        if sort < 5:
            return self.has()
        if sort == 5:
            return self.present()
        if sort == 6:
            return self.choice((IdIs(self.some(ids, 8)), OfPatient(self.some(PATIENTS))))
        if sort < 9:
            return AllOf(tuple(self.filter(ids, depth - 1, steps=steps) for _ in range(self.randint(0, 3))))
        if sort == 9:
            return AnyOf(tuple(self.filter(ids, depth - 1, steps=steps) for _ in range(self.randint(0, 3))))
        if sort == 10:
            return AnyOf(tuple(self.has() for _ in range(self.randint(1, 3))))
        return Not(self.filter(ids, depth - 1, steps=steps))

    def clause(self, ids: list[str]) -> VisibilityClause:
        patients = self.choice((None, frozenset({self.choice(PATIENTS)}), self.some(PATIENTS)))
        classes = frozenset(self.sample(CLASSES, self.choice((0, 2, 3, 4, 5, 5))))
        where = self.filter(ids, 1, steps=False) if self.random() < 0.25 else AllOf(())
        return VisibilityClause(patients, classes, self.random() < 0.7, where)

    def visibility(self, ids: list[str]) -> Visibility:
        return Visibility(tuple(self.clause(ids) for _ in range(self.choice((0, 1, 1, 1, 1, 2, 3)))), self.choice((0, 5, 7)))

    def sort(self, ids: list[str]) -> tuple[SortKey, ...]:
        keys = self.sample(SORTS, self.choice((0, 0, 1, 1, 2)))
        return tuple(self.sort_key(param, kind, self.random() < 0.5, ids) for param, kind in keys)

    def sort_key(self, param: str, kind: str, descending: bool, ids: list[str], depth: int = 2) -> SortKey:
        """A key, perhaps of the rows of any types to which steps with visibilities of their own lead."""
        if not self.types or not depth or self.random() < 0.6:
            return SortKey(param, kind, descending)
        steps = []
        for type in self.choices(self.types, k=self.choice((1, 1, 2))):
            key = self.sort_key(param, kind, descending, ids, depth - 1)
            visibility = self.visibility(ids) if self.random() < 0.95 else None
            steps.append(SortStep(self.choice(("link", "link", "link", "subject", "none")), type, key, visibility))
        return SortKey(param, kind, descending, tuple(steps))


@dataclass
class Chain:
    """The versions of a row, the current one last, each with the number of versions stored before it."""

    versions: list[tuple[int, SearchableRow]]
    deleted: bool = False

    def placed(self) -> SearchableRow:
        current = self.versions[-1][1]
        number = patient_number(current.patients[0]) if current.patients else 0
        return replace(current, place=(number, min(stored for stored, row in self.versions if self._like(row, current))))

    @staticmethod
    def _like(row: SearchableRow, current: SearchableRow) -> bool:
        shared = row.patients == current.patients or set(row.patients) & set(current.patients)
        return bool(shared) and (row.class_id, row.release_at) == (current.class_id, current.release_at)
