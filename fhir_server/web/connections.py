"""Clocks and limits of connections, for uvicorn's HTTP protocol.

uvicorn closes a connection that is idle between two requests.  This protocol also has a clock for the head of a request, for
its body and for a client that does not take its answer, a limit for the head, and one for connections: past it, the
connection that has waited longest for a request gives its place to the new one.

A request may be answered before its body has arrived: without a good token, or if the body is too large.  Most clients send the
whole body before they read, and to close the connection meanwhile would take the answer from them (RFC 9112, section 9.6).  So the
rest of the body is discarded for a while, up to a limit (:meth:`LimitedProtocol.linger`).
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from fhir_server.web.security_headers import Headers

_SMALL_BODY: Final = 64 * 1024  # bytes of a body that, if it is not read, are passed over to get to the next request
_LAST_SECONDS: Final = 1.0  # for a client to read the answer, once its body is no longer taken
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
    ``linger_seconds`` for the rest of a body that is discarded; ``linger_quiet_seconds`` without another part of it
    ``linger_bytes``   of such a rest
    """

    head_seconds: float = 20
    body_seconds: float = 300
    quiet_seconds: float = 30
    head_bytes: int = 64 * 1024
    connections: int = 1000
    linger_seconds: float = 30
    linger_quiet_seconds: float = 5
    linger_bytes: int = 64 * 1024 * 1024


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the limits of this process, which are set before it serves."""

    limits = ConnectionLimits()
    socket_url = b""  # the only URL that is upgraded to a websocket; at all others the header Upgrade is ignored (RFC 9110, 7.8)
    security_headers: Headers = ()  # of the answers that the application does not see

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._check: asyncio.TimerHandle | None = None
        self._until = self._quiet_until = inf  # when the head or body must be there; when the next part of it must be
        self._waits_since = 0.0  # for a request; 0: one is being handled
        self._in_head = False
        self._head_size = 0
        self._may_stay_open = False  # after this request, if its body arrives
        self._discarded: int | None = None  # bytes since the last answer of this connection
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
        if self._discarded is not None:
            self._discard(len(data))
            return
        if self.transport.is_closing():
            return  # refused
        super().data_received(data)
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > self.limits.head_bytes:
                self._refuse(431, "The request line and the headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_size = True, 0
        self._until = self.loop.time() + self.limits.head_seconds

    def on_headers_complete(self) -> None:
        if self._is_last_answered:
            return
        size = sum([len(name) + len(value) for name, value in self.headers], len(self.url))
        if size > self.limits.head_bytes or len(self.headers) > _HEADERS:
            self._refuse(431, f"The request line and the headers have more than {self.limits.head_bytes} bytes or {_HEADERS} headers.")
            return
        self._in_head, self._waits_since = False, 0.0
        now = self.loop.time()
        self._until, self._quiet_until = now + self.limits.body_seconds, now + self.limits.quiet_seconds
        super().on_headers_complete()
        self._may_stay_open = False
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        length = self._body_length()
        if length and (length > _SMALL_BODY or self.expect_100_continue or not self.cycle.keep_alive):
            # If it is answered before its body has arrived, this is the last answer of the connection.
            self._may_stay_open, self.cycle.keep_alive = self.cycle.keep_alive, False
            self.cycle.transport = _UntilBodyArrives(self, self.cycle, length)  # type: ignore[assignment]

    def _body_length(self) -> float:
        """The declared bytes of the body; none are declared for one that is sent in chunks."""
        for name, value in self.headers:
            if name == b"transfer-encoding":
                return inf
            if name == b"content-length":
                return int(value)  # the parser accepts digits only
        return 0

    def on_body(self, body: bytes) -> None:
        if self._in_head:
            return  # refused
        super().on_body(body)
        self._quiet_until = self.loop.time() + self.limits.quiet_seconds

    def on_message_complete(self) -> None:
        if self._in_head:
            return  # refused
        self._until = self._quiet_until = inf
        if self._may_stay_open and not self.cycle.response_started:
            self.cycle.keep_alive = True
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return self.url == self.socket_url and super()._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        if self._is_last_answered or (self.cycle is not None and not self.cycle.response_complete):
            self.transport.close()  # refused, or sent before the answer to another request
            return
        if self._check is not None:
            self._check.cancel()  # the websocket has clocks of its own
        super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        self._may_stay_open = False
        super().shutdown()

    @property
    def _is_last_answered(self) -> bool:
        return self._discarded is not None or self.transport.is_closing()

    def linger(self, *, takes_rest: bool = True) -> None:
        """Close the connection after what has been written: when the client does, or has sent enough, or takes too long.

        ``takes_rest``: whether to read what the client still sends, because it may read nothing before.
        """
        if self._is_last_answered:
            return
        now = self.loop.time()
        self._discarded, self._in_head = 0, False
        self._waits_since = self._waits_since or now
        self._until, self._quiet_until = now + self.limits.linger_seconds, now + self.limits.linger_quiet_seconds
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if takes_rest:
            self.flow.resume_reading()
        else:
            self._take_no_more()

    def _discard(self, size: int) -> None:
        """Take a part of a body that nobody will read."""
        assert self._discarded is not None
        self._discarded += size
        self._quiet_until = self.loop.time() + self.limits.linger_quiet_seconds
        if self._discarded > self.limits.linger_bytes and not self.flow.read_paused:
            self._take_no_more()

    def _take_no_more(self) -> None:
        self.flow.pause_reading()  # the client can still read the answer
        self.loop.call_later(_LAST_SECONDS, self.transport.abort)

    def on_response_complete(self) -> None:
        if self._discarded is not None:
            self.server_state.total_requests += 1
            return
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
        if self._is_last_answered:
            self.transport.close()
            return
        is_silent = self._waits_since > 0 and not self._in_head
        is_answered = not self._in_head and self.cycle is not None and self.cycle.response_started
        if not is_silent and not is_answered:
            self._answer(status, text)
        if status == 408:
            self.transport.close()  # it sends nothing
        else:
            self.linger()

    def send_400_response(self, msg: str) -> None:
        self._answer(400, msg)
        self.linger()

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        headers = [
            *self.security_headers, (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]  # fmt: skip
        lines = [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(STATUS_LINE[status] + b"".join(lines) + b"\r\n" + body)


class _UntilBodyArrives:
    """The transport of a cycle whose answer is the last of its connection if the body has not arrived by then."""

    __slots__ = ("_cycle", "_length", "_protocol", "is_closing", "write")

    def __init__(self, protocol: LimitedProtocol, cycle: RequestResponseCycle, length: float) -> None:
        self._protocol, self._cycle, self._length = protocol, cycle, length
        self.is_closing, self.write = protocol.transport.is_closing, protocol.transport.write

    def close(self) -> None:
        """Close the connection after the answer."""
        if self._cycle.more_body:
            self._protocol.linger(takes_rest=self._length == inf or self._length <= self._protocol.limits.linger_bytes)
        else:
            self._protocol.transport.close()


def open_files(connections: int) -> int:
    """Let this process open as many files as it may; return how many of these connections it can hold beside its own files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return connections if hard == resource.RLIM_INFINITY else max(1, min(connections, hard - _OWN_FILES))
