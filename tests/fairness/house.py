"""An application served in this process with real sockets, and a clock of its connections that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from fhir_server.web.connections import ConnectionLimits, LimitedProtocol

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


class House:
    """A served application, and the protocols of its connections."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server, self.port, self.late = server, port, 0.0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def count(self, number: int) -> None:
        """Wait until there are this many connections."""
        while len(self.server.server_state.connections) != number:
            await asyncio.sleep(0.001)

    async def all(self, state: Callable[[Any], bool]) -> None:
        """Wait until every connection is in this state."""
        while not all(state(one) for one in self.server.server_state.connections):
            await asyncio.sleep(0.001)

    def pass_seconds(self, seconds: float) -> None:
        """Let all connections look at a clock that is later by this much."""
        self.late += seconds
        for one in list(self.server.server_state.connections):
            assert isinstance(one, LimitedProtocol)
            for name in ("_until", "_quiet_until", "_write_until"):
                setattr(one, name, getattr(one, name) - seconds)
            one._look_at_the_clock()


@asynccontextmanager
async def house(app: Any, limits: ConnectionLimits) -> AsyncIterator[House]:
    LimitedProtocol.limits = limits
    config = uvicorn.Config(app, port=0, http=LimitedProtocol, lifespan="off", log_level="critical", timeout_keep_alive=1000)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    try:
        yield House(server, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = server.force_exit = True
        await task
        LimitedProtocol.limits = ConnectionLimits()


async def reading(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, and answers with its size."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    await answer(send, b"%d" % size)


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Answers without reading the body."""
    await answer(send, b"no")


async def answer(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def run(
    app: Any,
    job: Callable[[House], Awaitable[None]],
    *,
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    **limits: float,
) -> None:
    async def main() -> None:
        settings: dict[str, Any] = {"head_seconds": 1000, "body_seconds": 4000, "quiet_seconds": 2000, **limits}
        async with house(app, ConnectionLimits(**settings)) as one:
            await job(one)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
