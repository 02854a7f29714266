"""Chooses how a search starts: the order of joins is decided here and fixed with CROSS JOIN and INDEXED BY.

An access path is one query that yields the ``rid`` of rows that one visibility clause admits and that meet the
condition.  The result of a search is the union of its access paths.  A path starts from ids in the condition, from
index entries with one value (one contiguous range per patient and band), from index entries in a range of values, or from
the rows of a patient or type.  Paths read only the bands that the clause admits, so rows of hidden classes and rows held back
from release are not touched.  The exceptions are starts from a range of values, which no search of patients' rows uses.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol

import apsw

from fhir_server.search.filters import (
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    NearTo,
    NumbersAre,
    QuantityIs,
    RefersTo,
    TextIs,
    TokenIs,
)
from fhir_server.search.predicates import KIND
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store import conditions
from fhir_server.store.conditions import after_prefix
from fhir_server.store.sqlite.interning import AdmittedBands
from fhir_server.store.sqlite.ranges import AccessPath, RidRanges, path_by_rows, ranges_after
from fhir_server.store.sqlite.rows import TABLES, VALUE_BY_BAND
from fhir_server.store.sqlite.schema import MAX_RID, PATIENT_BITS, SEQUENCE
from fhir_server.store.sqlite.translate import (
    FALSE,
    FilterTranslator,
    Sql,
    both,
    class_admitted,
    ids_array,
    parameter_number,
    predicate_condition,
)

# Entries are counted up to these bounds to compare the possible starts of a search.
_PATIENT_BOUND: Final = 250  # in the ranges of patients
_PAGE_BOUND: Final = 2000  # store-wide for a page: past it, reading rows in order finds a page sooner
_ALL_BOUND: Final = 20_000  # store-wide for all rows
_MAX_DRIVERS: Final = 24


class RowReader(Protocol):
    """What planning needs of a snapshot."""

    def rows(self, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Run a reading statement and return all its rows."""


class _Extent(Enum):
    """How many of the rows that a search finds will be read."""

    PAGE = auto()  # the first ones in row order
    ALL = auto()  # all of them, to sort or count them


@dataclass(frozen=True, slots=True)
class _Driver:
    """Index entries ``x`` of ``table`` that meet ``key``.

    ``in_row_order``: ``index`` yields those of one band in the order of rows.  ``has_band``: ``index`` has the column ``band``;
    without it, the order is that of all rows.
    """

    table: str
    index: str
    key: Sql
    in_row_order: bool
    has_band: bool


@dataclass(frozen=True, slots=True)
class _Start:
    """The entries to start from, the index of the condition that they meet, and whether there are many of them."""

    condition: int
    drivers: tuple[_Driver, ...]
    is_broad: bool


_SHARED: Final = "SELECT a.rid FROM carray(?) b CROSS JOIN carray(?) p CROSS JOIN also a WHERE a.patient = p.value AND a.band = b.value"
_RELEASED: Final = (
    "SELECT r.rid FROM carray(?) p CROSS JOIN carray(?) b CROSS JOIN res r INDEXED BY res_held"
    " WHERE (r.rid >> 32) = p.value AND r.band = b.value AND r.release_at > r.updated AND r.release_at <= ?"
)


def access_paths_of_page(
    translator: FilterTranslator, where: Filter, visibility: Visibility, reader: RowReader, floor: int
) -> tuple[AccessPath, ...]:
    """Return the access paths of a search whose first rows in row order are wanted.  Paths that yield nothing are left out.

    Only rows after ``floor`` are found: with a greater rid, or for a visibility that is limited to patients, with a
    greater sequence number.
    """
    return _Planner(translator, where, visibility, reader, floor, _Extent.PAGE).paths()


def access_paths_of_all(translator: FilterTranslator, where: Filter, visibility: Visibility, reader: RowReader) -> tuple[AccessPath, ...]:
    """Return the access paths of a search of which all rows will be read, to sort or to count them."""
    return _Planner(translator, where, visibility, reader, -1, _Extent.ALL).paths()


def place_bits(visibility: Visibility) -> int:
    """Return the bits of a ``rid`` that order the answers of this visibility (:mod:`~fhir_server.store.row_order`)."""
    return SEQUENCE if visibility.limited_to_patients else MAX_RID


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans one search."""

    translator: FilterTranslator
    where: Filter
    visibility: Visibility
    reader: RowReader
    floor: int
    extent: _Extent

    def paths(self) -> tuple[AccessPath, ...]:
        """Return the access paths of all clauses."""
        if self.translator.type_number is None:
            return ()
        return tuple([path for clause in conditions.effective_clauses(self.visibility) for path in self._paths_of_clause(clause)])

    def _paths_of_clause(self, clause: VisibilityClause) -> Iterator[AccessPath]:
        bands = self.translator.admitted_bands(clause)
        if not bands.both:
            return
        needed = conditions.needed_conditions(self.where, clause)
        wanted = [self.translator.condition(part, clause.classes) for part in needed]
        if FALSE in wanted:
            return
        admitted = self.translator.admits_row(clause, self.visibility.now)

        def except_for(*met: int) -> Sql:
            """The conditions that remain when those at these indexes are met."""
            return both(admitted, *[condition for index, condition in enumerate(wanted) if index not in met])

        for index, part in enumerate(needed):
            if isinstance(part, IdIs):
                yield self._path_by_ids(part, except_for(index))
                return
        owner, patients = conditions.narrowest_patients(needed, clause)
        if patients is None:
            yield from self._paths_in(ranges_after(self.floor, bands.both), needed, clause, owner, except_for, is_all=bands.is_all)
            return
        numbers = self.translator.names.patients(patients)
        bits = place_bits(self.visibility)
        least = self.floor + 1 if bits == SEQUENCE else 0
        starts = array("q", [number << PATIENT_BITS | least for number in numbers if (number + 1) << PATIENT_BITS > self.floor])
        in_bands = bands.open if clause.released_only else bands.both
        if starts and in_bands:
            yield from self._paths_in(RidRanges(in_bands, starts, SEQUENCE - least, self.floor), needed, clause, owner, except_for)
        rids = array(
            "q", sorted([rid for rid in single_rids(clause, numbers, bands, self.visibility.now, self.reader) if rid & bits > self.floor])
        )
        if rids:
            text, args = both(("r.type = ?", (self.translator.type_number,)), except_for(owner))
            yield path_by_rids(rids, (text, args))

    def _paths_in(
        self,
        ranges: RidRanges,
        needed: Sequence[Filter],
        clause: VisibilityClause,
        owner: int,
        except_for: Callable[..., Sql],
        *,
        is_all: bool = False,
    ) -> Iterator[AccessPath]:
        """Yield the paths to the rows in these ranges; ``is_all``: the bands of the ranges are all bands of the type."""
        start = self._start(needed, clause, ranges, is_all=is_all)
        if start is None:
            yield path_by_rows(except_for(owner), ranges, self.translator.type_number if is_all else None)
            return
        remaining = except_for(owner, start.condition)
        within = ranges.with_bands(self._bands_with(start.drivers, ranges))
        if within.bands is not None and not within.bands:
            return
        yield from [_path_by_entries(driver, within, remaining, start.is_broad) for driver in start.drivers]

    def _bands_with(self, drivers: tuple[_Driver, ...], ranges: RidRanges) -> array[int] | None:
        """Return the bands that have such entries, because each band is read in turn, by a search over all patients."""
        bands = ranges.bands
        if bands is None or ranges.starts is not None or len(bands) == 1 or not all(driver.has_band for driver in drivers):
            return bands
        having: set[int] = set()
        for driver in drivers:
            text, args = driver.key
            entries = f"SELECT 1 FROM {driver.table} x INDEXED BY {driver.index} WHERE {text} AND x.band = b.value LIMIT 1"
            found = self.reader.rows(f"SELECT b.value FROM carray(?) b WHERE ({entries})", (apsw.carray(bands), *args))
            having.update([band for (band,) in found])
        return array("q", sorted(having))

    def _path_by_ids(self, part: IdIs, wanted: Sql) -> AccessPath:
        text, args = wanted
        body = f"carray(?) i CROSS JOIN res r INDEXED BY res_id WHERE r.type = ? AND r.id = i.value AND r.rid & ? > ? AND {text}"
        bits = place_bits(self.visibility)
        return AccessPath("r", "", body, (ids_array(part.ids), self.translator.type_number, bits, self.floor, *args))

    def _start(self, needed: Sequence[Filter], clause: VisibilityClause, ranges: RidRanges, *, is_all: bool) -> _Start | None:
        """Choose the entries to start from; None to start from the rows."""
        options = [(index, option) for index, part in enumerate(needed) if (option := self._option(part, clause.classes, is_all=is_all))]
        is_storewide = ranges.starts is None
        if not is_storewide:
            options = [(index, option) for index, option in options if _is_in_row_order(option)]
            # Nearly every row of a patient refers to that patient: use that only if there is nothing else to start from.
            options = [(index, option) for index, option in options if not _repeats_owner(needed, index, clause)] or options
        if not options:
            return None
        finds_all = self.extent is _Extent.ALL
        if len(options) == 1 and _is_in_row_order(options[0][1]) and not (finds_all and is_storewide):
            return _Start(*options[0], is_broad=False)
        bound = _PATIENT_BOUND if not is_storewide else _ALL_BOUND if finds_all else _PAGE_BOUND
        sizes = [sum(self._count_entries(driver, ranges, bound) for driver in option) for _, option in options]
        best = min(range(len(options)), key=lambda index: (sizes[index], not _is_in_row_order(options[index][1])))
        is_broad = is_storewide and sizes[best] >= bound
        if is_broad and not finds_all and not _is_in_row_order(options[best][1]):
            return None
        return _Start(*options[best], is_broad=is_broad)

    def _count_entries(self, driver: _Driver, ranges: RidRanges, bound: int) -> int:
        """Return the number of entries, counted up to ``bound``."""
        front, front_args, within = ranges.on("x", has_band=driver.has_band)
        text, args = both(driver.key, within)
        sql = f"SELECT count(*) FROM (SELECT 1 FROM {front}{driver.table} x INDEXED BY {driver.index} WHERE {text} LIMIT ?)"
        return int(self.reader.rows(sql, (*front_args, *args, bound))[0][0])

    def _option(self, part: Filter, classes: frozenset[int], *, is_all: bool) -> tuple[_Driver, ...] | None:
        """Return drivers that together yield every row that meets ``part``; None if there are none, or too many."""
        if isinstance(part, Has):
            driver = self._driver(part, classes, is_all=is_all)
            return (driver,) if driver else None
        if isinstance(part, AnyOf) and 0 < len(part.parts) <= _MAX_DRIVERS:
            drivers = [self._driver(inner, classes, is_all=is_all) if isinstance(inner, Has) else None for inner in part.parts]
            return tuple([driver for driver in drivers if driver]) if all(drivers) else None
        return None

    def _driver(self, part: Has, classes: frozenset[int], *, is_all: bool) -> _Driver | None:
        predicate = part.predicate
        kind = KIND[type(predicate)]
        names = self.translator.names
        number = parameter_number(self.translator.type, part.param, kind, names)
        bounds = _index_bounds(predicate)
        if number is None or bounds is None:
            return None
        key = both(("x.param = ?", (number,)), bounds, predicate_condition(predicate, names), class_admitted("x", classes))
        in_row_order = isinstance(predicate, TokenIs) or (isinstance(predicate, RefersTo) and len(predicate.targets) == 1)
        table = TABLES[kind][0]
        if is_all and kind in VALUE_BY_BAND:
            return _Driver(table, f"{table}_rows", key, in_row_order, has_band=False)
        index = "dat_lo" if isinstance(predicate, DateIs) and predicate.prefix in ("lt", "le") else f"{table}_value"
        return _Driver(table, index, key, in_row_order, kind in VALUE_BY_BAND)


def single_rids(clause: VisibilityClause, numbers: array[int], bands: AdmittedBands, now: int, reader: RowReader) -> set[int]:
    """Return the rows of these patients that the ranges of their rids and the open bands do not include.

    Of these rows one of the patients is another patient and none is the first; or, if the clause admits released rows only, they
    were held when they were written and have been released since.
    """
    if not numbers:
        return set()
    owned = set(numbers)
    shared = reader.rows(_SHARED, (apsw.carray(bands.both), apsw.carray(numbers)))
    found = {rid for (rid,) in shared if rid >> PATIENT_BITS not in owned}
    if clause.released_only and bands.held:
        found.update([rid for (rid,) in reader.rows(_RELEASED, (apsw.carray(numbers), apsw.carray(bands.held), now))])
    return found


def path_by_rids(rids: array[int], wanted: Sql) -> AccessPath:
    text, args = both(("r.rid = s.value", ()), wanted)
    return AccessPath("r", "", f"carray(?) s CROSS JOIN res r NOT INDEXED WHERE {text}", (apsw.carray(rids), *args))


def _path_by_entries(driver: _Driver, ranges: RidRanges, wanted: Sql, is_broad: bool) -> AccessPath:
    front, front_args, within = ranges.on("x", has_band=driver.has_band)
    text, args = both(driver.key, within, ("r.rid = x.rid", ()), wanted)
    body = f"{driver.table} x INDEXED BY {driver.index} CROSS JOIN res r WHERE {text}"
    return AccessPath("x", front, body, (*front_args, *args), is_distinct=False, is_broad=is_broad, patient=ranges.patient)


def _repeats_owner(needed: Sequence[Filter], index: int, clause: VisibilityClause) -> bool:
    """Return whether the condition at this index requires rows of some patients to refer to just those patients."""
    part, (_, owners) = needed[index], conditions.narrowest_patients(needed, clause)
    if owners is None or not isinstance(part, Has) or not isinstance(part.predicate, RefersTo):
        return False
    return part.predicate.targets <= {f"Patient/{owner}" for owner in owners}


def _is_in_row_order(option: tuple[_Driver, ...]) -> bool:
    return all(driver.in_row_order for driver in option)


def _index_bounds(predicate: object) -> Sql | None:
    """Return a condition that limits the search of the index by value, beyond the predicate; None if nothing limits it."""
    match predicate:
        case TokenIs(_, code):
            return None if code is None else _NO_MORE
        case RefersTo(targets):
            return _NO_MORE if targets else None
        case TextIs(value, mode):
            return _NO_MORE if mode == "equal" or (mode == "prefix" and after_prefix(value)) else None
        case DateIs(prefix, lo, hi):
            return _DATE_BOUNDS[prefix](lo, hi) if prefix in _DATE_BOUNDS else None
        case NearTo():
            return _NO_MORE
        case QuantityIs(prefix) | NumbersAre(QuantityIs(prefix)):
            return None if prefix == "ne" else _NO_MORE
    return None


_NO_MORE: Final[Sql] = ("1", ())
# What the predicate implies for the indexed end (``lo`` for lt and le, else ``hi``), because an entry's hi is greater than its lo.
_DATE_BOUNDS: Final[dict[str, Any]] = {
    "eq": lambda lo, hi: ("x.hi >= ? AND x.hi <= ?", (lo, hi)),
    "gt": lambda lo, hi: _NO_MORE,
    "lt": lambda lo, hi: _NO_MORE,
    "ge": lambda lo, hi: ("x.hi >= ?", (lo,)),
    "le": lambda lo, hi: ("x.lo <= ?", (hi,)),
    "sa": lambda lo, hi: ("x.hi >= ?", (hi,)),
    "eb": lambda lo, hi: _NO_MORE,
    "ap": lambda lo, hi: _NO_MORE,
}
