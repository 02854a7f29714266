"""A client of websockets over a real connection, which sends whatever a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ssl import SSLContext

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Message, Ping, Pong, RejectConnection, RejectData, Request, TextMessage


class RawClient:
    """A websocket on a connection.

    ``status``  of the answer to the opening request: 101 if it was opened
    ``closed``  the code with which the server closed it, 0 while it is open; 1006 if the connection just ended
    ``pongs``   the payloads of the server's answers to pings
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = self.closed = 0
        self.body = b""
        self.pongs: list[bytes] = []
        self.answers_pings, self.is_answered = True, False
        self._texts: list[str] = []
        self._part = ""
        self._protocol = WSConnection(ConnectionType.CLIENT)

    @classmethod
    async def open(cls, port: int, target: str = "/websocket", tls: SSLContext | None = None, **headers: str) -> RawClient:
        """Open a connection to this port of this machine, and wait for the answer."""
        one = cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None))
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        one.send(Request(host="localhost", target=target, extra_headers=extra))
        while one.status != 101 and not one.is_answered and not one.closed:
            await one._read()
        return one

    def send(self, event: Event) -> None:
        self.writer.write(self._protocol.send(event))

    def say(self, text: str) -> None:
        """Send a message."""
        self.send(Message(data=text))

    async def hear(self) -> str:
        """The next message; "" if the websocket ends before."""
        while not self._texts and not self.closed:
            await self._read()
        return self._texts.pop(0) if self._texts else ""

    async def end(self) -> int:
        """The code with which the server closes it."""
        while not self.closed:
            await self._read()
        self.writer.close()
        return self.closed

    async def pong(self) -> bytes:
        """The next answer to a ping."""
        while not self.pongs and not self.closed:
            await self._read()
        return self.pongs.pop(0) if self.pongs else b""

    async def _read(self) -> None:
        try:
            data = await self.reader.read(65536)
        except OSError:
            data = b""
        if not data:
            self.closed = self.closed or 1006
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case AcceptConnection():
                self.status = 101
                self.extensions = event.extensions
            case RejectConnection():
                self.status = event.status_code
                self.headers: Mapping[bytes, bytes] = dict(event.headers)
            case RejectData():
                self.body += event.data
                self.is_answered |= event.body_finished
            case TextMessage():
                self._part += event.data
                if event.message_finished:
                    self._texts.append(self._part)
                    self._part = ""
            case CloseConnection():
                self.closed = event.code
            case Ping() if self.answers_pings:
                self.send(event.response())
            case Pong():
                self.pongs.append(bytes(event.payload))
            case _:
                pass
