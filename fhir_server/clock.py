"""Clocks and instants: microseconds since 1970 UTC.

The clock is passed to all code that needs the time, so that a request has one ``now`` and tests can set it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

Clock = Callable[[], int]

SECOND: Final = 1_000_000

# Outside the range of FHIR dates.  They mean "never", "always" and the open end of a period; stored data contains them.
MAX_INSTANT: Final = 2**62
MIN_INSTANT: Final = -MAX_INSTANT

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def system_clock() -> Clock:
    """The machine's clock, except that it never goes back: a corrected clock must not cross a birthday twice."""
    last = 0

    def now() -> int:
        nonlocal last
        last = max(last, time.time_ns() // 1000)
        return last

    return now


def fixed_clock(instant: str) -> Clock:
    """A clock that always returns this ISO 8601 instant, which must have a time zone.  Raises ValueError for other text."""
    parsed = datetime.fromisoformat(instant)
    if parsed.tzinfo is None:
        raise ValueError(f"A fixed clock requires an instant with a time zone, not {instant!r}.")
    micros = micros_of(parsed)
    return lambda: micros


def micros_of(time: datetime) -> int:
    """The instant of a date and time; one without a time zone is in UTC."""
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def parsed_instant(text: str) -> int:
    """The instant of an ISO 8601 text; one without a time zone is in UTC.  Raises ValueError for other text."""
    return micros_of(datetime.fromisoformat(text))


def instant_text(micros: int) -> str:
    """A FHIR ``instant`` in UTC with milliseconds, e.g. ``2026-11-21T09:30:00.000Z``."""
    seconds, rest = divmod(micros, 1_000_000)
    return f"{_second_text(seconds)}.{rest // 1000:03d}Z"


@lru_cache(1024)
def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def http_date(micros: int) -> str:
    """An HTTP date (RFC 9110 5.6.7)."""
    return _http_second(micros // 1_000_000)


@lru_cache(1024)
def _http_second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT")
