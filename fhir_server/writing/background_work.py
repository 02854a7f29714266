"""Work on stored rows that a server does in the background, whenever there is any, as long as the process runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fhir_server.errors import Problem

_log = logging.getLogger("fhir_server")
_INTERVAL = 5.0  # seconds between two looks whether there is anything to do


async def keep_working(work: Callable[[], Awaitable[None]], may_write: Callable[[], bool], failure: str) -> None:
    """Do the work again and again while ``may_write()`` is true; never returns.  ``failure``: what the log says if it fails."""
    while True:
        try:
            if may_write():
                await work()
        except Problem as problem:
            if problem.kind != "read_only":  # it became read-only meanwhile
                _log.exception("%s; the server will try again.", failure)
        except Exception:
            _log.exception("%s; the server will try again.", failure)
        await asyncio.sleep(_INTERVAL)
