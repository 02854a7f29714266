"""Waiting for a condition: as long as it takes, with a bound that only a hang reaches.

No test may depend on the speed of the machine, so no test waits a fixed time for something to happen, and none gives up early.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

HANG: Final = 600.0  # seconds after which something that has not happened will not happen


def wait_until(condition: Callable[[], object], what: str, *, every: float = 0.02) -> None:
    """Check ``condition`` every ``every`` seconds until it is true.  Raises AssertionError, with ``what``, if it never becomes true."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"This did not happen: {what}."
        time.sleep(every)


async def until(condition: Callable[[], object], what: str, *, every: float = 0.01) -> None:
    """:func:`wait_until` on an event loop."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"This did not happen: {what}."
        await asyncio.sleep(every)


async def let_others_run() -> None:
    """Let every other task of the event loop run until it waits for something outside the loop, or for this task."""
    for _ in range(200):
        await asyncio.sleep(0)
