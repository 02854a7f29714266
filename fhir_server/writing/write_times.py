"""The time of a new version: it never precedes the version before it, whatever the clock says.

A system that asks for what changed since its last question loses a change that is dated before that question.  The clocks of two
servers may disagree, and a clock may be set back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_log = logging.getLogger("fhir_server")

_STEP: Final = 1000  # lastUpdated has milliseconds
_TOLERATED: Final = 1_000_000  # a request that waited has a time of before versions that did not
_PAUSE: Final = 60.0  # seconds between two warnings

_last_warning = -_PAUSE


def time_after(previous: int, now: int) -> int:
    """The time of a version that is written ``now`` after one of ``previous`` (microseconds; 0 for none)."""
    if now >= previous:
        return now
    warn_if_behind(previous, now)
    return previous + _STEP


LATEST_DELAY: Final = 1_000_000  # microseconds by which the time of a new version may be before the transaction that stores it


def write_time(requested: int, now: int) -> int:
    """The time of what a transaction stores ``now`` for a request of the instant ``requested``.

    It is that of the request, unless the request took long to come to its transaction: whoever follows the changes of a store could
    be past it by then.
    """
    return max(requested, now - LATEST_DELAY)


class WritesInProgress:
    """The writes of this process that are not stored yet."""

    def __init__(self) -> None:
        self._begun: dict[object, int] = {}

    @contextmanager
    def begun(self, now: Callable[[], int]) -> Iterator[None]:
        """A write, from before its transaction begins until it is stored or given up."""
        key = object()
        self._begun[key] = now() - LATEST_DELAY
        try:
            yield
        finally:
            del self._begun[key]

    def stored_until(self, now: int) -> int:
        """The instant before which no version of this process will be dated any more."""
        return min([now - LATEST_DELAY, *self._begun.values()])


def warn_if_behind(latest: int, now: int) -> None:
    """Warn the operator, at most once a minute, if the clock is behind an instant that has been."""
    global _last_warning
    if latest - now > _TOLERATED and time.monotonic() - _last_warning >= _PAUSE:
        _last_warning = time.monotonic()
        _log.warning(
            "This machine's clock is %d seconds behind what is stored or what the database's clock says. Was it set back, or is"
            " another server's clock ahead? New versions are dated after those before them.",
            (latest - now) // 1_000_000,
        )
