"""Dates as intervals of microseconds (http://hl7.org/fhir/R4/search.html#date).

A partial date is the whole of its day, month or year; an instant the whole of its last digit.  A time without a
zone, and every date, is taken as UTC.  What is open ends at ``clock.MIN_INSTANT`` or ``clock.MAX_INSTANT``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date as Day
from typing import Any, cast

from fhir_server.clock import MAX_INSTANT, MIN_INSTANT
from fhir_server.search.filters import DateIs, Prefix
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext

SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE

_EPOCH = Day(1970, 1, 1).toordinal()
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-](?:(?:0\d|1[0-3]):[0-5]\d|14:00))?)?)?)?",
    re.ASCII,
)
_PREFIXED = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(\d.*)", re.DOTALL)

Interval = tuple[int, int]


def interval(text: str) -> Interval:
    """[lo, hi) of a date, dateTime or instant of any precision.  Raises ValueError for anything else."""
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError("a date is written yyyy, yyyy-mm, yyyy-mm-dd or yyyy-mm-ddThh:mm[:ss] with Z or an offset")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    if hour is None:
        return _whole(int(year), int(month) if month else None, int(day) if day else None)
    if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 60:
        raise ValueError("the time of day does not exist")
    lo = _midnight(int(year), int(month), int(day)) + (int(hour) * 60 + int(minute)) * MINUTE - _offset(zone)
    if second is None:
        return lo, lo + MINUTE
    lo += int(second) * SECOND
    if fraction is None:
        return lo, lo + SECOND
    step = max(SECOND // 10 ** min(len(fraction), 6), 1)
    lo += int(fraction[:6]) * step
    return lo, lo + step


def _whole(year: int, month: int | None, day: int | None) -> Interval:
    if day is not None:
        lo = _midnight(year, cast(int, month), day)
        return lo, lo + DAY
    if month is None:
        return _midnight(year, 1, 1), _midnight(year, 12, 31) + DAY
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    last = _midnight(*following, 1) if following[0] <= 9999 else _midnight(year, 12, 31) + DAY
    return _midnight(year, month, 1), last


def _midnight(year: int, month: int, day: int) -> int:
    try:
        return (Day(year, month, day).toordinal() - _EPOCH) * DAY
    except ValueError:
        raise ValueError("the date does not exist") from None


def _offset(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    return (1 if zone[0] == "+" else -1) * (int(zone[1:3]) * 60 + int(zone[4:])) * MINUTE


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(lo, hi) of a date, of a Period, or of a Timing's outer limits; nothing for a text that is no date."""
    found = _lenient(value) if type(value) is str else _outer(value) if type(value) is dict else None
    return ((found, ()),) if found else ()


def _lenient(text: Any) -> Interval | None:
    try:
        return interval(text)
    except (ValueError, TypeError):
        return None


def _outer(value: dict[str, Any]) -> Interval | None:
    if "event" in value or "repeat" in value:
        parts = [_lenient(event) for event in value.get("event", ())]
        bounds = value.get("repeat", {}).get("boundsPeriod")
        parts += [_outer(bounds)] if bounds else []
        known = [part for part in parts if part]
        return (min(lo for lo, _ in known), max(hi for _, hi in known)) if known else None
    start, end = _lenient(value.get("start")), _lenient(value.get("end"))
    if start is None and end is None:
        return None
    lo, hi = start[0] if start else MIN_INSTANT, end[1] if end else MAX_INSTANT
    return (lo, hi) if lo < hi else None


def test(text: str, asked: ValueContext) -> DateIs:
    """``[prefix]date``; ``ap`` reaches a tenth of the distance from now to either side."""
    found = _PREFIXED.fullmatch(text)
    if found is None:
        raise ValueError("a date is written [prefix]yyyy[-mm[-dd[Thh:mm[:ss]]]]")
    lo, hi = interval(found[2])
    prefix = cast(Prefix, found[1] or "eq")
    if prefix == "ap":
        reach = abs(asked.now - lo) // 10
        lo, hi = lo - reach, hi + reach
    return DateIs(prefix, lo, hi)


KIND = ParameterType("date", ("Date", "DateTime", "Instant", "Period", "Timing"), frozenset(), extract, test)
