"""Clocks and limits of connections, for uvicorn's HTTP protocol.

uvicorn closes a connection that is idle between two requests.  This protocol also has a clock for the head of a request, for
its body and for a client that does not take its answer, a limit for the head, and one for connections: past it, the
connection that has waited longest for a request gives its place to the new one.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from fhir_server.web.security_headers import Headers

_UNREAD_BYTES: Final = 64 * 1024  # of a body that nobody will read, before the connection is closed
_LINGER_SECONDS: Final = 1.0  # for such a client to read the answer
_HEADERS: Final = 100
_OWN_FILES: Final = 100  # that a process opens: the store, its helpers, other systems


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of the connections to one server process.

    ``head_seconds``   from the first byte of a request, or the start of the connection, to the end of the head
    ``body_seconds``   for the whole body, while the server is ready to read it
    ``quiet_seconds``  without another part of the body, or while the client takes nothing of the answer
    ``head_bytes``     of the request line and the headers, of which there may be 100
    ``connections``    at a time
    """

    head_seconds: float = 20
    body_seconds: float = 300
    quiet_seconds: float = 30
    head_bytes: int = 64 * 1024
    connections: int = 1000


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the limits of this process, which are set before it serves."""

    limits = ConnectionLimits()
    security_headers: Headers = ()  # of the answers that the application does not see

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._check: asyncio.TimerHandle | None = None
        self._until = self._quiet_until = inf  # when the head or body must be there; when the next part of it must be
        self._waits_since = 0.0  # for a request; 0: one is being handled
        self._in_head = False
        self._head_size = 0
        self._unread = 0
        self._unsent = 0
        self._write_until = inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        now = self.loop.time()
        self._waits_since, self._until = now, now + self.limits.head_seconds
        self._arm()
        if len(self.connections) > self.limits.connections:
            waiting = [one for one in self.connections if isinstance(one, LimitedProtocol) and one._waits_since]
            min(waiting, key=lambda one: one._waits_since, default=self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._check is not None:
            self._check.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # refused
        super().data_received(data)
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > self.limits.head_bytes:
                self._refuse(431, "The request line and the headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_size, self._unread = True, 0, 0
        self._until = self.loop.time() + self.limits.head_seconds

    def on_headers_complete(self) -> None:
        if self.transport.is_closing():
            return  # an earlier request was refused
        size = sum([len(name) + len(value) for name, value in self.headers], len(self.url))
        if size > self.limits.head_bytes or len(self.headers) > _HEADERS:
            self._refuse(431, f"The request line and the headers have more than {self.limits.head_bytes} bytes or {_HEADERS} headers.")
            return
        self._in_head, self._waits_since = False, 0.0
        now = self.loop.time()
        self._until, self._quiet_until = now + self.limits.body_seconds, now + self.limits.quiet_seconds
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._in_head:
            return  # refused
        super().on_body(body)
        self._quiet_until = self.loop.time() + self.limits.quiet_seconds
        if self.cycle.response_complete:
            self._unread += len(body)
            if self._unread > _UNREAD_BYTES and not self.flow.read_paused:
                self.flow.pause_reading()  # the client can still read the answer
                self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    def on_message_complete(self) -> None:
        if self._in_head:
            return  # refused
        self._until = self._quiet_until = inf
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline:
            self._waits_since = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self._write_until = self.loop.time() + self.limits.quiet_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_until = inf

    def _arm(self) -> None:
        period = min(self.limits.head_seconds, self.limits.quiet_seconds, self.limits.body_seconds) / 4
        self._check = self.loop.call_later(period, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        """Close the connection if a clock has run out.  A clock stands still while the server itself does not read."""
        if self.transport.is_closing():
            return
        now = self.loop.time()
        if self.flow.read_paused and self._until < inf:
            self._until, self._quiet_until = now + self.limits.body_seconds, now + self.limits.quiet_seconds
        if now > self._write_until:
            unsent = self.transport.get_write_buffer_size()
            if unsent >= self._unsent:
                self.transport.abort()
                return
            self._unsent, self._write_until = unsent, now + self.limits.quiet_seconds
        if now > self._until or now > self._quiet_until:
            self._refuse(408, "The request did not arrive in time.")
            return
        self._arm()

    def _refuse(self, status: int, text: str) -> None:
        """Close the connection; with an answer, if a request has begun to arrive and no answer to it has begun."""
        if self.transport.is_closing():
            return
        is_silent = self._waits_since > 0 and not self._in_head
        is_answered = not self._in_head and self.cycle is not None and self.cycle.response_started
        if not is_silent and not is_answered:
            self._answer(status, text)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._answer(400, msg)
        self.transport.close()

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        headers = [
            *self.security_headers, (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]  # fmt: skip
        lines = [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(STATUS_LINE[status] + b"".join(lines) + b"\r\n" + body)


def open_files(connections: int) -> int:
    """Let this process open as many files as it may; return how many of these connections it can hold beside its own files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return connections if hard == resource.RLIM_INFINITY else max(1, min(connections, hard - _OWN_FILES))
