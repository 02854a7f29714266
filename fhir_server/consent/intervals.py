"""FHIR dates as intervals of instants in a given time zone (http://hl7.org/fhir/R4/datatypes.html#dateTime).

An interval is half open, [start, end), in microseconds since 1970 UTC.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from fhir_server import fhir_dates
from fhir_server.fhir_dates import FhirDate

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)

Interval = tuple[int, int]
"""[start, end) in microseconds since 1970 UTC."""


def civil_days(text: str) -> tuple[date, date] | None:
    """The first and the last day of a ``date``: ``2008``, ``2008-06`` or ``2008-06-15``; None for any other text."""
    parsed = fhir_dates.parse(text)
    return _days(parsed) if parsed is not None and parsed.hour is None else None


def _days(parsed: FhirDate) -> tuple[date, date] | None:
    try:
        return parsed.days()
    except ValueError:
        return None


def midnight(day: date, zone: ZoneInfo) -> int:
    """The first instant of a civil date.

    If clocks skip midnight or the whole day, this is the first instant after the gap. If midnight occurs twice, it is the first.
    """
    wall = datetime(day.year, day.month, day.day, tzinfo=zone)
    instant = wall.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == wall.replace(tzinfo=None):
        return micros(instant)
    # Midnight is in a gap. With the offset before the gap it maps to a time after the gap, with the offset after it to one before.
    early, late = wall.replace(fold=1).astimezone(UTC), instant
    while late - early > _SECOND:
        middle = early + ((late - early) // 2) // _SECOND * _SECOND
        if middle.astimezone(zone).replace(tzinfo=None) >= wall.replace(tzinfo=None):
            late = middle
        else:
            early = middle
    return micros(late)


def interval(text: str, zone: ZoneInfo) -> Interval | None:
    """The interval that a ``date``, ``dateTime`` or ``instant`` covers at its precision; None for any other text."""
    parsed = fhir_dates.parse(text)
    if parsed is None:
        return None
    try:
        return _civil_interval(parsed, zone) if parsed.hour is None else _instant_interval(parsed)
    except (ValueError, OverflowError):
        return None


def _civil_interval(parsed: FhirDate, zone: ZoneInfo) -> Interval:
    first, last = parsed.days()
    return midnight(first, zone), midnight(last + timedelta(days=1), zone)


def _instant_interval(parsed: FhirDate) -> Interval | None:
    if parsed.second is None or parsed.zone is None:
        return None
    digits = parsed.fraction[:6]
    start = datetime(
        parsed.year,
        parsed.month or 0,
        parsed.day or 0,
        parsed.hour or 0,
        parsed.minute or 0,
        parsed.second,
        int(f"{digits:0<6}"),
        timezone(timedelta(minutes=parsed.offset())),
    )
    return micros(start), micros(start) + 10 ** (6 - len(digits))


def micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC of an aware datetime."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
