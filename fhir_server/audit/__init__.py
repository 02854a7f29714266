"""The journal of who asked for what: one R4 AuditEvent a request, appended in chains that show a removed or altered line.

Each server process writes a chain of its own; a line holds the digest of the line before it.  Lines are gathered for a
moment and appended together, so that no answer waits for them; a machine that dies loses that moment's lines.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec

from fhir_server.audit.event import audit_event
from fhir_server.http import Request
from fhir_server.store import Store

JOURNAL = "audit"
_log = logging.getLogger("fhir_server")
_PAUSE = 0.25
_FULL = 1000


class Auditor:
    """Notes requests for the journal.  One per server process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._chain = secrets.token_hex(8)
        self._last = ""
        self._waiting: list[tuple[Request, int]] = []
        self._lines: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    async def note(self, request: Request, status: int) -> None:
        """Remember one request and the status it was answered with."""
        self._waiting.append((request, status))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        if len(self._waiting) >= _FULL:
            await self.flush()

    async def flush(self) -> None:
        """Append what is waiting, durably."""
        waiting, self._waiting = self._waiting, []
        self._lines += [self._line(request, status) for request, status in waiting]
        lines, self._lines = self._lines, []
        try:
            if lines:
                await self._store.append(JOURNAL, lines)
        except BaseException:
            self._lines = lines + self._lines  # in the chain's order, for the next attempt
            raise

    async def close(self) -> None:
        """Append what is waiting and stop."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        await self.flush()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            try:
                await self.flush()
            except Exception:
                _log.exception("The audit journal could not be written; it will be tried again.")

    def _line(self, request: Request, status: int) -> bytes:
        event = audit_event(request, status)
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
