"""The time zone of dates that have none of their own, by the base URL of the server that indexes and searches them.

A day such as ``2019-03-08`` is that of the institution, and so is a time without an offset in a query string
(http://hl7.org/fhir/R4/search.html#date: the server's time zone).  Resources and queries are read alike.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

SECOND: Final = 1_000_000
DAY: Final = 24 * 60 * 60 * SECOND
_EPOCH: Final = date(1970, 1, 1).toordinal()
_ORIGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZONES: dict[str, tzinfo] = {}


def use(base: str, name: str) -> None:
    """Let dates of the server at this base URL be of the zone with this IANA name."""
    _ZONES[base] = UTC if name == "UTC" else ZoneInfo(name)


def zone_of(base: str) -> tzinfo:
    """The zone of the server at this base URL."""
    return _ZONES.get(base, UTC)


def start_of(day: date, zone: tzinfo) -> int:
    """The instant at which a day begins, in microseconds since 1970 UTC; if clocks skip midnight, the first instant after the gap."""
    midnight = (day.toordinal() - _EPOCH) * DAY
    return midnight if zone is UTC else midnight - _offset(day, timedelta(), zone)


def end_of(day: date, zone: tzinfo) -> int:
    """The instant at which a day ends: the next one begins."""
    return start_of(day, zone) + DAY if zone is UTC or day == date.max else start_of(day + timedelta(days=1), zone)


def instant_of(day: date, time: timedelta, zone: tzinfo) -> int:
    """The instant at which the clocks show this time of a day; the first, if they show it twice."""
    shown = (day.toordinal() - _EPOCH) * DAY + time // timedelta(microseconds=1)
    return shown if zone is UTC else shown - _offset(day, time, zone)


def _offset(day: date, time: timedelta, zone: tzinfo) -> int:
    """How far the clocks of the zone are ahead of UTC when they show this time; that before a gap, in which they never show it."""
    try:
        shown = datetime.combine(day, datetime.min.time()) + time
        return (zone.utcoffset(shown.replace(tzinfo=zone)) or timedelta()) // timedelta(microseconds=1)
    except OverflowError:  # the first and the last day that there are
        return 0
