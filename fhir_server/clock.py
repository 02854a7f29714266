"""The one clock: microseconds since 1970 UTC, injected everywhere so that a request has a single ``now``."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

Clock = Callable[[], int]

# Beyond every date that FHIR can write.  Both are stored, in release times, in expiry times and in index entries.
MAX_INSTANT: Final = 2**62
MIN_INSTANT: Final = -MAX_INSTANT

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def system_clock() -> Clock:
    """The machine's clock, which never steps back: a corrected clock must not cross a birthday twice."""
    last = 0

    def now() -> int:
        nonlocal last
        last = max(last, time.time_ns() // 1000)
        return last

    return now


def fixed_clock(instant: str) -> Clock:
    """A clock that stands at an ISO 8601 instant (with zone).  Raises ValueError for anything else."""
    moment = datetime.fromisoformat(instant)
    if moment.tzinfo is None:
        raise ValueError(f"A fixed clock needs an instant with its time zone, not {instant!r}.")
    micros = (moment - _EPOCH) // timedelta(microseconds=1)
    return lambda: micros


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
