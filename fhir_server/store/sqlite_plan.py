"""Where the SQLite store starts to look: orders of joins are chosen here and pinned with CROSS JOIN and INDEXED BY.

An *arm* is one way into the store that yields the ``rid`` of rows shown by one window that meet the condition;
an answer is the union of its arms.  An arm is driven by the ids asked for, by index entries of one value
(one contiguous range within a patient), by entries of a range of values, or by the rows of a patient or type.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
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
from fhir_server.search.sight import Sight, Window
from fhir_server.store.sqlite_rows import TABLES
from fhir_server.store.sqlite_schema import MAX_RID, PATIENT_BITS
from fhir_server.store.sqlite_where import FALSE, KIND_OF, Meaning, Sql, admitted, after_prefix, among, both, param_number, passes

_WIDTH: Final = (1 << PATIENT_BITS) - 1
_FEW: Final = 250  # entries in a patient's range that are cheaper to count than to guess
_MANY: Final = 2000  # entries store-wide, past which walking rows in order finds a page sooner
_MOST_DRIVERS: Final = 24


class Reading(Protocol):
    """What planning needs of the connection."""

    def rows(self, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]: ...


@dataclass(frozen=True, slots=True)
class Arm:
    """``SELECT <alias>.rid`` in front of ``body`` is a statement; ``once`` if it yields no row twice."""

    alias: str
    body: str
    args: tuple[Any, ...]
    once: bool

    def select(self, columns: str = "", *, distinct: bool = True) -> str:
        return f"SELECT {'' if self.once or not distinct else 'DISTINCT '}{self.alias}.rid AS rid{columns} FROM {self.body}"


@dataclass(frozen=True, slots=True)
class _Driver:
    """Entries ``x`` of ``table`` that meet ``key``; ``inorder`` if its index yields them in the order of rows."""

    table: str
    key: Sql
    inorder: bool


@dataclass(frozen=True, slots=True)
class _Spans:
    """The rows to look at: ranges of ``width`` from each of ``starts`` (None: all rows), beyond ``floor``."""

    starts: array[int] | None
    width: int
    floor: int

    def on(self, alias: str) -> tuple[str, Sql]:
        """A table to put in front, and the condition on ``alias``."""
        if self.starts is None:
            return "", (f"{alias}.rid BETWEEN ? AND ?", (self.floor + 1, MAX_RID))
        if len(self.starts) == 1:
            start = self.starts[0]
            return "", (f"{alias}.rid BETWEEN ? AND ?", (max(start, self.floor + 1), start + self.width))
        each = f"{alias}.rid BETWEEN s.value AND s.value + ? AND {alias}.rid > ?"
        return "carray(?) s CROSS JOIN ", (each, (self.width, self.floor))


def arms(
    meaning: Meaning, where: Filter, sight: Sight, reading: Reading, *, floor: int = -1, whole: bool = False
) -> tuple[Arm, ...]:
    """The arms of a search, those that cannot yield anything left out.

    ``floor``: only rows of a greater rid.  ``whole``: all that is found will be wanted (to sort or to count it).
    """
    found: list[Arm] = []
    for window in merged(sight.windows):
        found.extend(_of_window(meaning, where, window, sight.now, reading, floor, whole))
    return tuple(found)


def merged(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """These windows without those that show nothing or are repeated."""
    return tuple(dict.fromkeys(w for w in windows if w.classes and (w.patients is None or w.patients)))


def conjuncts(filter: Filter) -> Iterator[Filter]:
    """The conditions that must all hold for this one to hold."""
    if isinstance(filter, AllOf):
        for part in filter.parts:
            yield from conjuncts(part)
    else:
        yield filter


def _of_window(
    meaning: Meaning, where: Filter, window: Window, now: int, reading: Reading, floor: int, whole: bool
) -> Iterator[Arm]:
    wanted = both(meaning.condition(where, window.classes), meaning.shown(window, now))
    if wanted == FALSE or meaning.names.number("type:" + meaning.type) is None:
        return
    needed = (*conjuncts(where), *conjuncts(window.where))
    ids = [part.ids for part in needed if isinstance(part, IdIs)]
    if ids:
        yield _by_ids(meaning, min(ids, key=len), wanted, floor)
        return
    owners = [part.patients for part in needed if isinstance(part, OfPatient)]
    if window.patients is not None:
        owners.append(window.patients)
    for spans in _spans(min(owners, key=len), meaning, reading, floor) if owners else [_Spans(None, 0, floor)]:
        drivers = _drivers(meaning, needed, window, spans, reading, whole)
        if drivers is None:
            yield _by_rows(meaning, spans, wanted)
        else:
            for driver in drivers:
                yield _by_entries(driver, spans, wanted)


def _spans(patients: frozenset[str], meaning: Meaning, reading: Reading, floor: int) -> Iterator[_Spans]:
    numbers = meaning.names.patients(patients)
    starts = array("q", [number << PATIENT_BITS for number in numbers if (number + 1) << PATIENT_BITS > floor])
    if starts:
        yield _Spans(starts, _WIDTH, floor)
    others, args = among("patient", numbers)
    points = array("q", [rid for (rid,) in reading.rows(f"SELECT rid FROM also WHERE {others}", args)])
    owned = set(numbers)
    apart = array("q", sorted({rid for rid in points if rid >> PATIENT_BITS not in owned and rid > floor}))
    if apart:
        yield _Spans(apart, 0, floor)


def _by_ids(meaning: Meaning, ids: frozenset[str], wanted: Sql, floor: int) -> Arm:
    text, args = wanted
    type = meaning.names.number("type:" + meaning.type)
    body = f"carray(?) i CROSS JOIN res r INDEXED BY res_id WHERE r.type = ? AND r.id = i.value AND r.rid > ? AND {text}"
    return Arm("r", body, (apsw.carray(tuple(ids)), type, floor, *args), True)


def _by_rows(meaning: Meaning, spans: _Spans, wanted: Sql) -> Arm:
    front, within = spans.on("r")
    type = meaning.names.number("type:" + meaning.type)
    text, args = both(("r.type = ?", (type,)), within, wanted)
    return Arm("r", f"{front}res r INDEXED BY res_scan WHERE {text}", (*_listed(spans, front), *args), True)


def _by_entries(driver: _Driver, spans: _Spans, wanted: Sql) -> Arm:
    front, within = spans.on("x")
    text, args = both(driver.key, within, ("r.rid = x.rid", ()), wanted)
    table = f"{driver.table} x INDEXED BY {driver.table}_value"
    return Arm("x", f"{front}{table} CROSS JOIN res r WHERE {text}", (*_listed(spans, front), *args), False)


def _listed(spans: _Spans, front: str) -> tuple[Any, ...]:
    return (apsw.carray(spans.starts),) if front else ()


def _drivers(
    meaning: Meaning, needed: tuple[Filter, ...], window: Window, spans: _Spans, reading: Reading, whole: bool
) -> tuple[_Driver, ...] | None:
    """The entries to start from; None to start from the rows."""
    options = [option for part in needed if (option := _option(part, meaning, window.classes))]
    if spans.starts is not None:
        options = [option for option in options if all(driver.inorder for driver in option)]
        bound = _FEW
    else:
        bound = _MANY
    if len(options) < 2 and (spans.starts is not None or not options or all(driver.inorder for driver in options[0])):
        return options[0] if options else None
    sizes = [sum(_size(driver, spans, reading, bound) for driver in option) for option in options]
    best = min(range(len(options)), key=lambda place: (sizes[place], not all(d.inorder for d in options[place])))
    if sizes[best] >= bound and not whole and not all(driver.inorder for driver in options[best]):
        return None
    return options[best]


def _size(driver: _Driver, spans: _Spans, reading: Reading, bound: int) -> int:
    front, within = spans.on("x")
    text, args = both(driver.key, within)
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {front}{driver.table} x INDEXED BY {driver.table}_value WHERE {text} LIMIT ?)"
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
    kind = KIND_OF[type(part.test)]
    number = param_number(meaning.type, part.param, kind, meaning.names)
    bounds = _bounds(part.test)
    if number is None or bounds is None:
        return None
    key = both(("x.param = ?", (number,)), bounds, passes(part.test, meaning.names), admitted("x", classes))
    inorder = isinstance(part.test, TokenIs) or (isinstance(part.test, RefersTo) and len(part.test.targets) == 1)
    return _Driver(TABLES[kind][0], key, inorder)


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
            return _HI[prefix](lo, hi) if prefix in _HI else None
        case QuantityIs(prefix):
            return None if prefix == "ne" else _NO_MORE
    return None


_NO_MORE: Final[Sql] = ("1", ())
# what the test says of ``hi``, by which dates are ordered; an entry's hi is greater than its lo
_HI: Final[dict[str, Any]] = {
    "eq": lambda lo, hi: ("x.hi BETWEEN ? AND ?", (lo, hi)),
    "gt": lambda lo, hi: _NO_MORE,
    "ge": lambda lo, hi: ("x.hi >= ?", (lo,)),
    "sa": lambda lo, hi: ("x.hi >= ?", (hi,)),
    "eb": lambda lo, hi: _NO_MORE,
    "ap": lambda lo, hi: _NO_MORE,
}
