"""The audit log: one R4 AuditEvent for each FHIR request, and one for each security event.

Security events are those of the sign-in, OAuth and portal pages and of the operator's commands.

Each server process appends its own chain of lines.  A line contains the digest of the line before it, so a changed or
missing line shows.  Lines are collected for a quarter of a second and appended together, so that no response waits for
them.  If the machine fails, the lines collected since the last append are lost.
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
from fhir_server.interactions.messages import AuditContext, Request
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import Store

LOG_NAME = "audit"
_log = logging.getLogger("fhir_server")
_FLUSH_SECONDS = 0.25
_FLUSH_AT = 1000


class AuditLog:
    """Records requests and security events.  One per server process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._chain = secrets.token_hex(8)
        self._last = ""
        self._waiting: list[Callable[[], dict[str, Any]]] = []
        self._lines: list[bytes] = []
        self._flushing = asyncio.Lock()
        self._appends: set[asyncio.Task[None]] = set()  # the event loop itself holds tasks weakly
        self._task: asyncio.Task[None] | None = None

    async def record_request(self, request: Request, context: AuditContext, status: int) -> None:
        """Record one request with its context and the HTTP status of the response."""
        await self._add(partial(audit_event, request, context, status))

    async def record_event(self, event: SecurityEvent, at: int) -> None:
        """Record a security event.  ``at`` is in microseconds since 1970 UTC."""
        await self._add(partial(security_event, event, at))

    async def flush(self) -> None:
        """Append everything recorded so far, durably.  Raises what the store raises; then nothing is lost."""
        # A caller that is cancelled must not end an append whose lines the store may already have: they would be appended again.
        append = asyncio.create_task(self._append())
        self._appends.add(append)
        append.add_done_callback(self._appends.discard)
        await asyncio.shield(append)

    async def _append(self) -> None:
        async with self._flushing:  # two at once could append lines in another order than the chain's
            waiting, self._waiting = self._waiting, []
            self._lines += [self._line(event()) for event in waiting]
            if self._lines:
                await self._store.append_log(LOG_NAME, self._lines)
                self._lines = []

    async def close(self) -> None:
        """Append everything recorded so far, and stop."""
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
        """Append everything recorded so far.  If that fails, log the error and try again with the next flush."""
        try:
            await self.flush()
        except Exception:
            _log.exception("The audit log could not be written. The server tries again.")

    def _line(self, event: dict[str, Any]) -> bytes:
        line = msgspec.json.encode({"chain": self._chain, "before": self._last, "event": event})
        self._last = sha256(line).hexdigest()
        return line


def broken_links(lines: Iterable[tuple[int, bytes]]) -> list[int]:
    """Return the numbers of the lines whose digest does not match the line before them in their chain."""
    last: dict[str, str] = {}
    broken = []
    for number, text in lines:
        line: dict[str, Any] = json.loads(text)
        if line["before"] != last.get(line["chain"], ""):
            broken.append(number)
        last[line["chain"]] = sha256(text).hexdigest()
    return broken
