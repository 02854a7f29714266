"""Dates of FHIR as stretches of time: half open, in microseconds since 1970 UTC, civil dates in a given time zone.

http://hl7.org/fhir/R4/datatypes.html#dateTime
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d+))?(?:Z|[+-]\d\d:\d\d)")


def civil(text: str) -> tuple[date, date] | None:
    """First and last day of a ``date``: ``2008``, ``2008-06`` or ``2008-06-15``; None for anything else."""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    year, month, day = (int(part) if part else 0 for part in found.groups())
    try:
        first = date(year, month or 1, day or 1)
        if day:
            return first, first
        after = date(year + 1, 1, 1) if not month or month == 12 else date(year, month + 1, 1)
        return first, after - timedelta(days=1)
    except ValueError:
        return None


def midnight(day: date, zone: ZoneInfo) -> int:
    """The first instant of a civil date.

    Where clocks skip midnight (or the whole day), the instant after the gap; where midnight comes twice, the first.
    """
    wall = datetime(day.year, day.month, day.day, tzinfo=zone)
    at = wall.astimezone(UTC)
    if at.astimezone(zone).replace(tzinfo=None) == wall.replace(tzinfo=None):
        return micros(at)
    # In a gap the offset before it gives a time after the gap's end, and the offset after it one before.
    early, late = wall.replace(fold=1).astimezone(UTC), at
    while late - early > _SECOND:
        middle = early + ((late - early) // 2) // _SECOND * _SECOND
        if middle.astimezone(zone).replace(tzinfo=None) >= wall.replace(tzinfo=None):
            late = middle
        else:
            early = middle
    return micros(late)


def span(text: str, zone: ZoneInfo) -> tuple[int, int] | None:
    """The stretch a ``date``, ``dateTime`` or ``instant`` covers at its precision; None for anything else."""
    days = civil(text)
    if days is not None:
        try:
            return midnight(days[0], zone), midnight(days[1] + timedelta(days=1), zone)
        except OverflowError:
            return None
    found = _INSTANT.fullmatch(text)
    if found is None:
        return None
    fraction = found[1] or ""
    digits = fraction[:6]
    try:
        start = micros(datetime.fromisoformat(text.replace(f".{fraction}", f".{digits:0<6}") if digits else text))
    except (ValueError, OverflowError):
        return None
    return start, start + 10 ** (6 - len(digits))


def micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC of an aware datetime."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
