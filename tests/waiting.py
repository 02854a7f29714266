"""Waits for a condition, with a time limit that only a hang reaches.

Tests must not depend on the speed of the machine.  They never wait a fixed time for an event, and never use a short limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

HANG: Final = 600.0  # seconds; a longer wait is a hang


def wait_until(condition: Callable[[], object], what: str, *, every: float = 0.02) -> None:
    """Check ``condition`` every ``every`` seconds until it is true.  Raise AssertionError with ``what`` after ``HANG`` seconds."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"This did not happen: {what}."
        time.sleep(every)


async def until(condition: Callable[[], object], what: str, *, every: float = 0.01) -> None:
    """Like :func:`wait_until`, for code on an event loop."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"This did not happen: {what}."
        await asyncio.sleep(every)


async def happened(event: asyncio.Event, by: Sequence[asyncio.Future[None]]) -> None:
    """Wait for ``event``, which the tasks ``by`` set.  Raise what a task raises, at once; AssertionError if they end without it."""
    awaited = asyncio.ensure_future(event.wait())
    waiting: set[asyncio.Future[Any]] = {awaited, *by}
    while not event.is_set():
        done, waiting = await asyncio.wait(waiting, timeout=HANG, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
        assert done and (event.is_set() or waiting != {awaited}), "The event did not happen."
    awaited.cancel()


async def let_others_run() -> None:
    """Let the other tasks of the event loop run until each waits for this task or for an event outside the loop."""
    for _ in range(200):
        await asyncio.sleep(0)
