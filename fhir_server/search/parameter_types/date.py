"""Search parameters of type ``date``, as intervals of microseconds (http://hl7.org/fhir/R4/search.html#date).

A partial date covers its whole day, month or year; an instant covers the whole of its last digit. A date, and a time without a
zone, is of the server's zone (:mod:`fhir_server.search.zones`). An open end of a Period is :data:`~fhir_server.clock.MIN_INSTANT` or
:data:`~fhir_server.clock.MAX_INSTANT`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, timedelta, tzinfo
from functools import lru_cache
from typing import Any, cast

from fhir_server import fhir_dates
from fhir_server.clock import MAX_INSTANT, MIN_INSTANT
from fhir_server.search import zones
from fhir_server.search.filters import DateIs, Prefix
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext

SECOND = 1_000_000
MINUTE = 60 * SECOND

_PREFIXED = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(\d.*)", re.DOTALL)

Interval = tuple[int, int]
"""[lo, hi) in microseconds since 1970 UTC."""


@lru_cache(4096)  # a resource has the same few dates in several elements
def interval(text: str, zone: tzinfo = UTC) -> Interval:
    """The interval of a date, dateTime or instant of any precision; ``zone``: of a text without one.  Raises ValueError for other texts."""
    parsed = fhir_dates.parse(text)
    if parsed is None and text and " " in text:
        # In a query string, the plus of an offset is a blank if it is not percent-encoded; HAPI's client sends it so.
        parsed = fhir_dates.parse(text.replace(" ", "+"))
    if parsed is None:
        raise ValueError("a date is written yyyy, yyyy-mm, yyyy-mm-dd or yyyy-mm-ddThh:mm[:ss] with Z or an offset")
    if parsed.hour is not None and (parsed.hour > 23 or (parsed.minute or 0) > 59 or (parsed.second or 0) > 60):
        raise ValueError("the time of day does not exist")
    try:
        first, last = parsed.days()
    except ValueError:
        raise ValueError("the date does not exist") from None
    if parsed.hour is None:
        lo = zones.start_of(first, zone)
        return lo, max(zones.end_of(last, zone), lo + 1)  # calendars have skipped a day
    time = timedelta(hours=parsed.hour, minutes=parsed.minute or 0)
    lo = zones.instant_of(first, time, zone if parsed.zone is None else UTC) - parsed.offset() * MINUTE
    if parsed.second is None:
        return lo, lo + MINUTE
    lo += parsed.second * SECOND
    digits = parsed.fraction[:6]
    unit = SECOND // 10 ** len(digits)
    lo += int(digits or "0") * unit
    return lo, lo + unit


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(lo, hi) of a date, of a Period, or of a Timing's outer limits; nothing for a text that is no date."""
    zone = zones.zone_of(base)
    covered = _interval_or_none(value, zone) if type(value) is str else _outer_interval(value, zone) if type(value) is dict else None
    return ((covered, ()),) if covered else ()


def _interval_or_none(text: Any, zone: tzinfo) -> Interval | None:
    try:
        return interval(text, zone)
    except (ValueError, TypeError):
        return None


def _outer_interval(value: dict[str, Any], zone: tzinfo) -> Interval | None:
    if "event" in value or "repeat" in value:
        parts = [_interval_or_none(event, zone) for event in value.get("event", ())]
        bounds = value.get("repeat", {}).get("boundsPeriod")
        parts += [_outer_interval(bounds, zone)] if bounds else []
        known = [part for part in parts if part]
        return (min(lo for lo, _ in known), max(hi for _, hi in known)) if known else None
    start, end = _interval_or_none(value.get("start"), zone), _interval_or_none(value.get("end"), zone)
    if start is None and end is None:
        return None
    lo, hi = start[0] if start else MIN_INSTANT, end[1] if end else MAX_INSTANT
    return (lo, hi) if lo < hi else None


def parse_value(text: str, context: ValueContext) -> DateIs:
    """``[prefix]date``; ``ap`` extends the interval on both sides by a tenth of its distance from now."""
    match = _PREFIXED.fullmatch(text)
    if match is None:
        raise ValueError("a date is written [prefix]yyyy[-mm[-dd[Thh:mm[:ss]]]]")
    lo, hi = interval(match[2], zones.zone_of(context.base))
    prefix = cast(Prefix, match[1] or "eq")
    if prefix == "ap":
        margin = abs(context.now - lo) // 10
        lo, hi = lo - margin, hi + margin
    return DateIs(prefix, lo, hi)


DATE = ParameterType("date", ("Date", "DateTime", "Instant", "Period", "Timing"), frozenset(), extract, parse_value)
