"""The meaning of each predicate on one index entry, for :mod:`fhir_server.search.match`.

http://hl7.org/fhir/R4/search.html#prefix defines the prefixes on intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fhir_server.search.filters import (
    URL_ENDS,
    DateIs,
    NearTo,
    NumbersAre,
    Predicate,
    QuantityIs,
    RefersTo,
    TextIs,
    TokenIs,
    UnderUrl,
    WordIs,
)
from fhir_server.search.rows import Entry, Scalar

KIND: Final[dict[type, str]] = {
    TokenIs: "token",
    RefersTo: "reference",
    UnderUrl: "reference",
    TextIs: "string",
    WordIs: "words",
    NearTo: "position",
    NumbersAre: "position",
    DateIs: "date",
    QuantityIs: "quantity",
}
"""The kind of the entries that a predicate tests."""


def passes(test: Predicate, entry: Entry) -> bool:
    """Whether an entry of the predicate's kind satisfies it."""
    match test:
        case TokenIs(system, code):
            return system in (None, entry.value[0]) and code in (None, entry.value[1])
        case RefersTo(targets):
            return entry.value[0] in targets
        case UnderUrl(url):
            return entry.value[0] == url or str(entry.value[0]).startswith(tuple(url + end for end in URL_ENDS))
        case TextIs(value, mode):
            folded, exact = str(entry.value[0]), entry.value[1]
            return _TEXT[mode](value, folded, exact)
        case WordIs(word):
            return f" {word} " in str(entry.value[0])
        case NearTo():
            return _is_near(test, *[float(one or 0) for one in entry.value])
        case NumbersAre(first, second):
            return _NUMBER[first.prefix](first, entry.value[2]) and _NUMBER[second.prefix](second, entry.value[0])
        case DateIs():
            return _DATE[test.prefix](test, *entry.value)
        case QuantityIs():
            return _unit(test, entry) and _NUMBER[test.prefix](test, entry.value[0])


def _is_near(test: NearTo, x: float, y: float, z: float) -> bool:
    # Stores repeat these steps in this order, so that rounding is the same.
    low, high = test.bounds
    apart = (x - test.x) * (x - test.x) + (y - test.y) * (y - test.y) + (z - test.z) * (z - test.z)
    return low <= z <= high and apart <= test.square


def _unit(test: QuantityIs, entry: Entry) -> bool:
    _, system, code, unit = entry.value
    if test.system is None:
        return test.unit is None or test.unit in (code, unit)
    return test.system == system and test.unit in (None, code)


_TEXT: dict[str, Callable[[str, str, Scalar], bool]] = {
    "prefix": lambda value, folded, exact: folded.startswith(value),
    "contains": lambda value, folded, exact: value in folded,
    "equal": lambda value, folded, exact: folded == value,
    "exact": lambda value, folded, exact: exact == value,
}


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
