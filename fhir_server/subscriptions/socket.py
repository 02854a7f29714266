"""One open websocket of a subscriber."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Final

from fhir_server.web.websockets import Connection

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_CLOSE_SECONDS: Final = 1.0


class Socket:
    """A websocket that was accepted.

    ``send``        sends an ASGI message; ``connection``: the rest that can be done with it
    ``caller``      whose it is, once something is bound: a person, or a client that acts for nobody
    ``is_closed``   whether the server has begun to close it
    """

    def __init__(self, send: Send, connection: Connection) -> None:
        self._send = send
        self._connection = connection
        self._turn = asyncio.Lock()
        self.caller = ""
        self.is_closed = False

    async def tell(self, text: str, seconds: float) -> bool:
        """Send a message.  False if the client has not confirmed it in time; its connection has ended then.

        One after the other, so no more than one message waits for a client that does not read.
        """
        try:
            async with asyncio.timeout(seconds), self._turn:
                if self.is_closed:
                    return False
                await self._send({"type": "websocket.send", "text": text})
                await self._connection.confirm()
                return True
        except (TimeoutError, OSError):
            self.is_closed = True
            self._connection.abort()
            return False

    async def close(self, code: int) -> None:
        """Close it, with a status code of RFC 6455, section 7.4, and no word of why."""
        if self.is_closed:
            return
        self.is_closed = True
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                with suppress(OSError):
                    await self._send({"type": "websocket.close", "code": code})
        except TimeoutError:
            self._connection.abort()
