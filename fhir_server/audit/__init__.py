"""The journal of who asked for what: one R4 AuditEvent a request, and one for each act of the sign-in, OAuth and portal pages.

Lines are appended in chains that show a removed or altered one.

Each server process writes a chain of its own; a line holds the digest of the line before it.  Lines are gathered for a
moment and appended together, so that no answer waits for them; a machine that dies loses that moment's lines.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec

from fhir_server.audit.request_events import audit_event
from fhir_server.audit.security_events import security_event
from fhir_server.interactions.messages import Request
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import Store

LOG_NAME = "audit"
_log = logging.getLogger("fhir_server")
_FLUSH_SECONDS = 0.25
_FLUSH_AT = 1000


class AuditLog:
    """Notes requests for the journal.  One per server process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._chain = secrets.token_hex(8)
        self._last = ""
        self._waiting: list[Callable[[], dict[str, Any]]] = []
        self._lines: list[bytes] = []
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def record_request(self, request: Request, status: int) -> None:
        """Remember one request and the status it was answered with."""
        await self._add(partial(audit_event, request, status))

    async def record_event(self, act: SecurityEvent, at: int) -> None:
        """Remember an act of the pages or the OAuth endpoints, at this instant."""
        await self._add(partial(security_event, act, at))

    async def flush(self) -> None:
        """Append what is waiting, durably."""
        async with self._flushing:  # for lines that overtook others which could not be written would break the chain
            waiting, self._waiting = self._waiting, []
            self._lines += [self._line(event()) for event in waiting]
            if self._lines:
                await self._store.append_log(LOG_NAME, self._lines)
                self._lines = []

    async def close(self) -> None:
        """Append what is waiting and stop."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        await self.flush()

    async def _add(self, event: Callable[[], dict[str, Any]]) -> None:
        self._waiting.append(event)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        if len(self._waiting) >= _FLUSH_AT and not self._flushing.locked():
            await self._flush_once()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            await self._flush_once()

    async def _flush_once(self) -> None:
        """Append what is waiting; if that fails it waits on, for the request itself was answered."""
        try:
            await self.flush()
        except Exception:
            _log.exception("The audit journal could not be written; it will be tried again.")

    def _line(self, event: dict[str, Any]) -> bytes:
        line = msgspec.json.encode({"chain": self._chain, "before": self._last, "event": event})
        self._last = sha256(line).hexdigest()
        return line


def broken_links(lines: Iterable[tuple[int, bytes]]) -> list[int]:
    """Numbers of the lines that do not follow from the line before them in their chain."""
    last: dict[str, str] = {}
    broken = []
    for number, text in lines:
        line: dict[str, Any] = json.loads(text)
        if line["before"] != last.get(line["chain"], ""):
            broken.append(number)
        last[line["chain"]] = sha256(text).hexdigest()
    return broken
