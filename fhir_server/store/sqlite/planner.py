"""Where the SQLite store starts to look: orders of joins are chosen here and pinned with CROSS JOIN and INDEXED BY.

An *arm* is one way into the store that yields the ``rid`` of rows shown by one window that meet the condition;
an answer is the union of its arms.  An arm is driven by the ids asked for, by index entries of one value
(one contiguous range within a patient), by entries of a range of values, or by the rows of a patient or type.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import apsw

from fhir_server.search.filters import (
    AllOf,
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    OfPatient,
    QuantityIs,
    RefersTo,
    TextIs,
    TokenIs,
)
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store.sqlite.rows import TABLES
from fhir_server.store.sqlite.schema import MAX_RID, PATIENT_BITS, SEQUENCE
from fhir_server.store.sqlite.translate import FALSE, KIND_OF, Meaning, Sql, admitted, after_prefix, among, both, param_number, passes

_FEW: Final = 250  # entries in a patient's range that are cheaper to count than to guess
_MANY: Final = 2000  # entries store-wide, past which walking rows in order finds a page sooner
_LOTS: Final = 20_000  # the same where all of them would have to be sorted
_MOST_DRIVERS: Final = 24


class RowReader(Protocol):
    """What planning needs of the connection."""

    def rows(self, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]: ...


@dataclass(frozen=True, slots=True)
class AccessPath:
    """``SELECT <alias>.rid FROM`` before ``front`` and ``body`` is a statement; ``front`` is a list of spans to look at in turn.

    ``once``: it yields no row twice.  ``wide``: nothing narrows it to few rows, so that to read all of it is dear.
    ``patient``: the number of the one patient whose own rows it yields, so that they are in the order of ``rid``.
    """

    alias: str
    front: str
    body: str
    args: tuple[Any, ...]
    once: bool = True
    wide: bool = False
    patient: int | None = None

    def select(self, *, distinct: bool = True) -> str:
        return f"SELECT {self._distinct if distinct else ''}{self.alias}.rid AS rid FROM {self.front}{self.body}"

    def firsts(self, limit: int) -> Sql:
        """The rids stored first, at most ``limit``: of several spans, from the first ones of each."""
        stored = f"{self.alias}.rid & {SEQUENCE}"
        if not self.front:
            return f"{self.select()} ORDER BY {f'{self.alias}.rid' if self.patient else stored} LIMIT ?", (*self.args, limit)
        each = f"SELECT {self._distinct}{self.alias}.rid FROM {self.body} ORDER BY {self.alias}.rid LIMIT ?"
        text = f"SELECT c.rid AS rid FROM {self.front}res c WHERE c.rid IN ({each}) ORDER BY c.rid & {SEQUENCE} LIMIT ?"
        return text, (*self.args, limit, limit)

    @property
    def _distinct(self) -> str:
        return "" if self.once else "DISTINCT "


@dataclass(frozen=True, slots=True)
class _Driver:
    """Entries ``x`` of ``table`` that meet ``key``; ``inorder`` if ``index`` yields them in the order of rows."""

    table: str
    index: str
    key: Sql
    inorder: bool


@dataclass(frozen=True, slots=True)
class _Spans:
    """The rows to look at: ranges of ``width`` from each of ``starts`` (None: all rows), beyond ``floor``."""

    starts: array[int] | None
    width: int
    floor: int

    @property
    def patient(self) -> int | None:
        """The patient of all these rows, if they are one patient's own."""
        return self.starts[0] >> PATIENT_BITS if self.starts is not None and len(self.starts) == 1 and self.width else None

    def on(self, alias: str) -> tuple[str, Sql]:
        """A table to put in front, and the condition on ``alias``.

        Two comparisons, for SQLite makes only the lower end of a BETWEEN bound the search of a joined table.
        """
        if self.starts is None:
            return "", (f"{alias}.rid >= ? AND {alias}.rid <= ?", (self.floor + 1, MAX_RID))
        if len(self.starts) == 1:
            start = self.starts[0]
            return "", (f"{alias}.rid >= ? AND {alias}.rid <= ?", (max(start, self.floor + 1), start + self.width))
        each = f"{alias}.rid >= max(s.value, ?) AND {alias}.rid <= s.value + ?"
        return "carray(?) s CROSS JOIN ", (each, (self.floor + 1, self.width))


def access_paths(
    meaning: Meaning, where: Filter, visibility: Visibility, reading: RowReader, *, floor: int = -1, whole: bool = False
) -> tuple[AccessPath, ...]:
    """The arms of a search, those that cannot yield anything left out.

    ``floor``: only rows of a greater rid, of which a bounded sight counts the sequence alone.  ``whole``: all that is
    found will be wanted (to sort or to count it).
    """
    found: list[AccessPath] = []
    if meaning.type_number is None:
        return ()
    for clause in merged(visibility.clauses):
        found.extend(_of_clause(meaning, where, clause, visibility, reading, floor, whole))
    return tuple(found)


def place_bits(visibility: Visibility) -> int:
    """The bits of a ``rid`` that this sight's answers are ordered by (:mod:`~fhir_server.store.row_order`)."""
    return SEQUENCE if visibility.limited_to_patients else MAX_RID


def merged(clauses: tuple[VisibilityClause, ...]) -> tuple[VisibilityClause, ...]:
    """These windows without those that show nothing or are repeated."""
    return tuple(dict.fromkeys(w for w in clauses if w.classes and (w.patients is None or w.patients)))


def conjuncts(filter: Filter) -> Iterator[Filter]:
    """The conditions that must all hold for this one to hold."""
    if isinstance(filter, AllOf):
        for part in filter.parts:
            yield from conjuncts(part)
    else:
        yield filter


def _of_clause(
    meaning: Meaning, where: Filter, clause: VisibilityClause, visibility: Visibility, reading: RowReader, floor: int, whole: bool
) -> Iterator[AccessPath]:
    needed = [*conjuncts(where), *conjuncts(clause.where)]
    if clause.patients is not None:
        needed.append(OfPatient(clause.patients))
    wanted = [meaning.condition(part, clause.classes) for part in needed]
    if FALSE in wanted:
        return
    shown = meaning.row_shown(clause, visibility.now)

    def rest(*met: int) -> Sql:
        return both(shown, *[condition for place, condition in enumerate(wanted) if place not in met])

    ids = [place for place, part in enumerate(needed) if isinstance(part, IdIs)]
    if ids:
        yield _by_ids(meaning, needed[ids[0]], rest(ids[0]), floor, place_bits(visibility))
        return
    owner, patients = _owner(needed)
    for spans in [beyond(floor)] if patients is None else _spans(patients, meaning, reading, floor, place_bits(visibility)):
        place, drivers, many = _drivers(meaning, needed, clause, spans, reading, whole)
        if drivers:
            yield from [_by_entries(driver, spans, rest(owner, place), many) for driver in drivers]
        else:
            yield by_rows(meaning, rest(owner), spans)


def _owner(needed: Sequence[Filter]) -> tuple[int, frozenset[str] | None]:
    """The narrowest of the conditions on whose row it is, and its place."""
    owners = [(place, part.patients) for place, part in enumerate(needed) if isinstance(part, OfPatient)]
    return min(owners, key=lambda owner: len(owner[1])) if owners else (-1, None)


def _spans(patients: frozenset[str], meaning: Meaning, reading: RowReader, floor: int, bits: int) -> Iterator[_Spans]:
    """``floor`` bounds these ``bits`` of a rid."""
    numbers = meaning.names.patients(patients)
    least = floor + 1 if bits == SEQUENCE else 0
    starts = array("q", [number << PATIENT_BITS | least for number in numbers if (number + 1) << PATIENT_BITS > floor])
    if starts:
        yield _Spans(starts, SEQUENCE - least, floor)
    others, args = among("patient", numbers)
    points = array("q", [rid for (rid,) in reading.rows(f"SELECT rid FROM also WHERE {others}", args)])
    owned = set(numbers)
    apart = array("q", sorted({rid for rid in points if rid >> PATIENT_BITS not in owned and rid & bits > floor}))
    if apart:
        yield _Spans(apart, 0, floor)


def _by_ids(meaning: Meaning, part: Filter, wanted: Sql, floor: int, bits: int) -> AccessPath:
    """``floor`` bounds these ``bits`` of a rid."""
    assert isinstance(part, IdIs)
    text, args = wanted
    body = f"carray(?) i CROSS JOIN res r INDEXED BY res_id WHERE r.type = ? AND r.id = i.value AND r.rid & ? > ? AND {text}"
    return AccessPath("r", "", body, (apsw.carray(tuple(part.ids)), meaning.type_number, bits, floor, *args))


def by_rows(meaning: Meaning, wanted: Sql, spans: _Spans) -> AccessPath:
    """The arm that looks at every row of the type in these spans."""
    front, within = spans.on("r")
    text, args = both(("r.type = ?", (meaning.type_number,)), within, wanted)
    body = f"res r INDEXED BY res_scan WHERE {text}"
    return AccessPath("r", front, body, (*_listed(spans, front), *args), wide=spans.starts is None, patient=spans.patient)


def beyond(floor: int) -> _Spans:
    """All rows of a greater rid."""
    return _Spans(None, 0, floor)


def _by_entries(driver: _Driver, spans: _Spans, wanted: Sql, many: bool) -> AccessPath:
    front, within = spans.on("x")
    text, args = both(driver.key, within, ("r.rid = x.rid", ()), wanted)
    body = f"{driver.table} x INDEXED BY {driver.index} CROSS JOIN res r WHERE {text}"
    return AccessPath("x", front, body, (*_listed(spans, front), *args), once=False, wide=many, patient=spans.patient)


def _listed(spans: _Spans, front: str) -> tuple[Any, ...]:
    return (apsw.carray(spans.starts),) if front else ()


def _drivers(
    meaning: Meaning, needed: Sequence[Filter], clause: VisibilityClause, spans: _Spans, reading: RowReader, whole: bool
) -> tuple[int, tuple[_Driver, ...], bool]:
    """The entries to start from, the place of the condition they meet, and whether they are many; none to start from the rows."""
    options = [(place, option) for place, part in enumerate(needed) if (option := _option(part, meaning, clause.classes))]
    if spans.starts is not None:
        options = [(place, option) for place, option in options if _inorder(option)]
        # Nearly every row of a patient names that patient: nothing to start from where there is anything else.
        options = [one for one in options if not _names_owner(needed, one[0])] or options
    if not options:
        return -1, (), False
    if len(options) == 1 and _inorder(options[0][1]) and not (whole and spans.starts is None):
        return *options[0], False
    bound = _FEW if spans.starts is not None else _LOTS if whole else _MANY
    sizes = [sum(_size(driver, spans, reading, bound) for driver in option) for _, option in options]
    best = min(range(len(options)), key=lambda one: (sizes[one], not _inorder(options[one][1])))
    many = spans.starts is None and sizes[best] >= bound
    if many and not whole and not _inorder(options[best][1]):
        return -1, (), False
    return *options[best], many


def _names_owner(needed: Sequence[Filter], place: int) -> bool:
    """Whether the condition at this place asks rows of some patients to refer to just those."""
    part, (_, owners) = needed[place], _owner(needed)
    if owners is None or not isinstance(part, Has) or not isinstance(part.predicate, RefersTo):
        return False
    return part.predicate.targets <= {f"Patient/{owner}" for owner in owners}


def _inorder(option: tuple[_Driver, ...]) -> bool:
    return all(driver.inorder for driver in option)


def _size(driver: _Driver, spans: _Spans, reading: RowReader, bound: int) -> int:
    front, within = spans.on("x")
    text, args = both(driver.key, within)
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {front}{driver.table} x INDEXED BY {driver.index} WHERE {text} LIMIT ?)"
    return int(reading.rows(sql, (*_listed(spans, front), *args, bound))[0][0])


def _option(part: Filter, meaning: Meaning, classes: frozenset[int]) -> tuple[_Driver, ...] | None:
    """Drivers that together yield every row that meets ``part``; None if there are none, or too many."""
    if isinstance(part, Has):
        driver = _driver(part, meaning, classes)
        return (driver,) if driver else None
    if isinstance(part, AnyOf) and 0 < len(part.parts) <= _MOST_DRIVERS:
        drivers = [_driver(one, meaning, classes) if isinstance(one, Has) else None for one in part.parts]
        return tuple([driver for driver in drivers if driver]) if all(drivers) else None
    return None


def _driver(part: Has, meaning: Meaning, classes: frozenset[int]) -> _Driver | None:
    kind = KIND_OF[type(part.predicate)]
    number = param_number(meaning.type, part.param, kind, meaning.names)
    bounds = _bounds(part.predicate)
    if number is None or bounds is None:
        return None
    key = both(("x.param = ?", (number,)), bounds, passes(part.predicate, meaning.names), admitted("x", classes))
    inorder = isinstance(part.predicate, TokenIs) or (isinstance(part.predicate, RefersTo) and len(part.predicate.targets) == 1)
    table = TABLES[kind][0]
    index = "dat_lo" if isinstance(part.predicate, DateIs) and part.predicate.prefix in ("lt", "le") else f"{table}_value"
    return _Driver(table, index, key, inorder)


def _bounds(test: object) -> Sql | None:
    """A condition that bounds the index by value beyond what the test itself says; None if nothing bounds it."""
    match test:
        case TokenIs(_, code):
            return None if code is None else _NO_MORE
        case RefersTo(targets):
            return _NO_MORE if targets else None
        case TextIs(value, mode):
            return _NO_MORE if mode == "prefix" and after_prefix(value) else None
        case DateIs(prefix, lo, hi):
            return _ENDS[prefix](lo, hi) if prefix in _ENDS else None
        case QuantityIs(prefix):
            return None if prefix == "ne" else _NO_MORE
    return None


_NO_MORE: Final[Sql] = ("1", ())
# what the test says of the end that the index is by (``lo`` for lt and le, else ``hi``); an entry's hi is greater than its lo
_ENDS: Final[dict[str, Any]] = {
    "eq": lambda lo, hi: ("x.hi >= ? AND x.hi <= ?", (lo, hi)),
    "gt": lambda lo, hi: _NO_MORE,
    "lt": lambda lo, hi: _NO_MORE,
    "ge": lambda lo, hi: ("x.hi >= ?", (lo,)),
    "le": lambda lo, hi: ("x.lo <= ?", (hi,)),
    "sa": lambda lo, hi: ("x.hi >= ?", (hi,)),
    "eb": lambda lo, hi: _NO_MORE,
    "ap": lambda lo, hi: _NO_MORE,
}
