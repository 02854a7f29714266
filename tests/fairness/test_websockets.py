"""Clocks and limits of websockets, on a server in this process with real sockets.  The tests move the clocks that they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from wsproto.events import BytesMessage, Message, Ping

from fhir_server.web import websockets
from fhir_server.web.connections import ConnectionLimits, LimitedProtocol
from fhir_server.web.websockets import CONNECTION, GOING_AWAY, MESSAGE_BYTES, SOCKET_OPTIONS, LimitedWebSocket, SocketLimits
from tests.subscriptions.raw_websocket import RawClient

PATH = b"/websocket"
UPGRADE = (
    b"GET %s HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says what it hears; answers other requests with the path."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text") or "bytes"})


@pytest.fixture
def limits() -> Iterator[None]:
    LimitedProtocol.socket_url, LimitedProtocol.limits = PATH, ConnectionLimits(head_seconds=1000)
    LimitedWebSocket.limits = SocketLimits(1000, 1000)
    yield
    LimitedProtocol.socket_url, LimitedProtocol.limits, LimitedWebSocket.limits = b"", ConnectionLimits(), SocketLimits()


def run(job: Callable[[uvicorn.Server, int], Awaitable[None]], app: Any = echo) -> None:
    async def main() -> None:
        options = dict(SOCKET_OPTIONS) | {"ws_ping_interval": 1000.0}
        config = uvicorn.Config(app, port=0, http=LimitedProtocol, lifespan="off", log_level="critical", **options)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)
        try:
            await job(server, server.servers[0].sockets[0].getsockname()[1])
        finally:
            server.should_exit = server.force_exit = True
            await task

    asyncio.run(main())


async def protocol_of(server: uvicorn.Server) -> LimitedWebSocket:
    """The server's side of the only websocket."""
    while True:
        found = [one for one in server.server_state.connections if isinstance(one, LimitedWebSocket)]
        if found:
            return found[0]
        await asyncio.sleep(0.001)


def test_a_websocket_outlives_the_clocks_of_requests_and_is_not_compressed(limits: None) -> None:
    async def job(server: uvicorn.Server, port: int) -> None:
        one = await RawClient.open(port)
        assert one.status == 101 and one.extensions == []
        one.say("a")
        assert await one.hear() == "a"
        assert all(not isinstance(each, LimitedProtocol) for each in server.server_state.connections)
        one.send(Ping(payload=b"p"))
        assert await one.pong() == b"p"

    run(job)


@pytest.mark.parametrize("target", ["/", "/fhir/metadata", "/websocket/", "/websocket?token=x", "/websocket%20"])
def test_all_other_urls_ignore_the_upgrade(limits: None, target: str) -> None:
    async def job(server: uvicorn.Server, port: int) -> None:
        one = await RawClient.open(port, target)
        assert one.status == 404

    run(job)


@pytest.mark.parametrize(
    "text", [b"x: " + b"y" * 70_000 + b"\r\n", b"x: y\r\n" * 100, b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"]
)
def test_a_large_or_odd_opening_request_opens_no_endless_connection(limits: None, text: bytes) -> None:
    async def job(server: uvicorn.Server, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UPGRADE % (PATH, text))
        answer = await reader.read(20)
        assert answer[9:12] in (b"101", b"431", b"400"), answer
        writer.close()
        while server.server_state.connections:
            await asyncio.sleep(0.001)

    run(job)


def test_an_upgrade_before_the_answer_to_another_request_is_refused(limits: None) -> None:
    release = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await echo(scope, receive, send)

    async def job(server: uvicorn.Server, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n" + UPGRADE % (PATH, b""))
        assert await reader.read() == b""
        release.set()

    run(job, slow)


def test_an_opening_that_does_not_end_is_cut_off(limits: None) -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def job(server: uvicorn.Server, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UPGRADE % (PATH, b""))
        one = await protocol_of(server)
        one._end_opening()
        while server.server_state.connections:
            await asyncio.sleep(0.001)
        for task in list(server.server_state.tasks):
            task.cancel()

    run(job, never)


@pytest.mark.parametrize("parts", [1, 8])
def test_a_giant_message_is_cut_off_whatever_its_frames(limits: None, parts: int) -> None:
    async def job(server: uvicorn.Server, port: int) -> None:
        one = await RawClient.open(port)
        one.say("x" * MESSAGE_BYTES)
        assert await one.hear() == "x" * MESSAGE_BYTES
        for number in range(parts):
            one.send(Message(data="x" * (MESSAGE_BYTES // parts + 1), message_finished=number == parts - 1))
        assert await one.end() == 1009

    run(job)


def test_bytes_are_counted_by_the_minute(limits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def job(server: uvicorn.Server, port: int) -> None:
        one = await RawClient.open(port)
        side = await protocol_of(server)
        for _ in range(600):  # of 131 bytes each
            one.send(Ping(payload=b"p" * 125))
        assert await one.end() == 1006
        other = await RawClient.open(port)
        side = await protocol_of(server)
        for _ in range(3):
            for _ in range(400):
                other.send(Ping(payload=b"p" * 125))
            for _ in range(400):
                assert await other.pong()
            side._minute -= 61
        assert not other.closed

    run(job)


def test_pings_are_not_answered_to_a_client_that_reads_nothing(limits: None) -> None:
    async def job(server: uvicorn.Server, port: int) -> None:
        one = await RawClient.open(port)
        side = await protocol_of(server)
        side.pause_writing()
        one.send(Ping(payload=b"first"))
        while side._received == 0:
            await asyncio.sleep(0.001)
        side.resume_writing()
        one.send(Ping(payload=b"second"))
        assert await one.pong() == b"second"

    run(job)


def test_a_client_that_takes_nothing_is_cut_off(limits: None) -> None:
    LimitedWebSocket.limits = SocketLimits(1000, 0.001)

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "x" * 1_000_000})

    async def job(server: uvicorn.Server, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UPGRADE % (PATH, b""))
        while not server.server_state.connections:
            await asyncio.sleep(0.001)
        while server.server_state.connections:
            await asyncio.sleep(0.001)
        writer.close()

    run(job, flood)


def test_a_message_is_confirmed_when_the_client_has_it(limits: None) -> None:
    confirmed: list[bool] = []

    async def telling(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for text in ("a", "b"):
            await send({"type": "websocket.send", "text": text})
            try:
                await scope["extensions"][CONNECTION].confirm()
                confirmed.append(True)
            except OSError:
                confirmed.append(False)

    async def job(server: uvicorn.Server, port: int) -> None:
        one = await RawClient.open(port)
        assert await one.hear() == "a"
        one.answers_pings = False
        assert await one.hear() == "b"
        one.writer.close()
        while len(confirmed) < 2:
            await asyncio.sleep(0.001)
        assert confirmed == [True, False]

    run(job, telling)


def test_an_orderly_stop_says_that_the_server_goes_away(limits: None) -> None:
    async def job(server: uvicorn.Server, port: int) -> None:
        one = await RawClient.open(port)
        await protocol_of(server)
        server.should_exit = True
        assert await one.end() == GOING_AWAY

    run(job)


def test_urls_of_websockets_are_not_logged(limits: None, caplog: pytest.LogCaptureFixture) -> None:
    async def job(server: uvicorn.Server, port: int) -> None:
        one = await RawClient.open(port)
        one.say("a")
        assert await one.hear() == "a"

    with caplog.at_level("INFO"):
        websockets._log.warning("not written")
        run(job)
    assert "websocket" not in caplog.text.lower() and "not written" not in caplog.text


def test_a_message_of_bytes_is_taken_as_such(limits: None) -> None:
    async def job(server: uvicorn.Server, port: int) -> None:
        one = await RawClient.open(port)
        one.send(BytesMessage(data=b"a"))
        assert await one.hear() == "bytes"

    run(job)
