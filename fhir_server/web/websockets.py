"""Clocks and limits of websockets, for uvicorn's protocol (RFC 6455).

A websocket lasts, so each part of it has a bound: the opening handshake, the bytes that the client sends in a minute, the size of a
message, the answers to its pings, and the time in which it takes what is written to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import Any, Final, Protocol

from uvicorn.config import Config
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from uvicorn.server import ServerState
from wsproto import events

GOING_AWAY: Final = 1001
POLICY: Final = 1008
MESSAGE_BYTES: Final = 4096  # of a message from a client
SOCKET_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "ws": "fhir_server.web.websockets:LimitedWebSocket", "ws_max_size": MESSAGE_BYTES, "ws_per_message_deflate": False,
        "ws_ping_interval": 20.0, "ws_ping_timeout": 20.0,
    }
)  # fmt: skip
"""The options of uvicorn for websockets.  Compression would tell of what is secret in a message by its length."""
CONNECTION: Final = "fhir_server.connection"  # the ASGI extension whose value is a Connection
_NUMBERS = count()
_log = logging.getLogger("uvicorn.error.websockets")
_log.setLevel(logging.ERROR)  # uvicorn's lines about each websocket quote its URL; faults are still written


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """The limits of a websocket.

    ``opening_seconds``  until the opening handshake is done
    ``quiet_seconds``    in which the client takes nothing of what is written
    ``bytes_a_minute``   that the client sends, frames and all
    """

    opening_seconds: float = 20
    quiet_seconds: float = 30
    bytes_a_minute: int = 64 * 1024


class Connection(Protocol):
    """What the application may do with a websocket beyond ASGI's messages."""

    async def confirm(self) -> None:
        """Wait until the client has received all that was sent.  Raises OSError if the connection ends before."""

    def abort(self) -> None:
        """End the connection at once, whatever has not been sent."""


class LimitedWebSocket(WSProtocol):
    """uvicorn's websocket with the limits of this process, which are set before it serves."""

    limits = SocketLimits()

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _log
        self._opening: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._minute = 0.0
        self._received = 0
        self._awaited: dict[bytes, asyncio.Future[None]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._opening = self.loop.call_later(self.limits.opening_seconds, self._end_opening)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._opening, self._writing):
            if timer is not None:
                timer.cancel()
        for waiting in self._awaited.values():
            if not waiting.done():
                waiting.set_exception(OSError("The connection ended."))
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        now = self.loop.time()
        if now - self._minute >= 60:
            self._minute, self._received = now, 0
        self._received += len(data) if self.handshake_complete else 0
        if self._received > self.limits.bytes_a_minute:
            self.abort()
        else:
            super().data_received(data)

    def handle_connect(self, event: events.Request) -> None:
        super().handle_connect(event)
        extensions: Any = self.scope["extensions"]
        extensions[CONNECTION] = self

    def handle_ping(self, event: events.Ping) -> None:
        if self.writable.is_set():  # only the newest ping needs an answer (RFC 6455, section 5.5.3)
            super().handle_ping(event)

    def handle_pong(self, event: events.Pong) -> None:
        waiting = self._awaited.get(bytes(event.payload))
        if waiting is None:
            super().handle_pong(event)
        elif not waiting.done():
            waiting.set_result(None)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(self.limits.quiet_seconds, self.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent and not self.transport.is_closing():
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": GOING_AWAY})
            self.transport.write(self.conn.send(events.CloseConnection(code=GOING_AWAY)))
        super().shutdown()

    async def confirm(self) -> None:
        """See :class:`Connection`: the client answers pings in order, after what was sent before."""
        payload = b"told %d" % next(_NUMBERS)  # never that of uvicorn's own pings, which have four bytes
        waiting = self._awaited[payload] = self.loop.create_future()
        try:
            if self.disconnected or self.close_sent or self.transport.is_closing():
                raise OSError("The connection ended.")
            self.transport.write(self.conn.send(events.Ping(payload=payload)))
            await waiting
        finally:
            del self._awaited[payload]
            waiting.cancel()

    def abort(self) -> None:
        """See :class:`Connection`."""
        self.transport.abort()

    def _end_opening(self) -> None:
        if not self.handshake_complete:
            self.abort()
