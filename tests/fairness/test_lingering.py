"""A client that sends a whole large body before it reads still gets the answer that needed none of it.

Clients in threads, over real sockets; the bodies are larger than what the sockets' buffers hold.
"""

from __future__ import annotations

import asyncio
import http.client
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import uvloop

from fhir_server.web import connections
from fhir_server.web.connections import LimitedProtocol
from tests.fairness.house import GET, POST, House, answer, refusing, run

LARGE = 31_000_000
LENGTHS = [LARGE, 65_000, 66_000, 300_000, 1]


async def refusing_after_a_part(scope: Any, receive: Any, send: Any) -> None:
    """Reads a part of the body, as of one whose length is not declared, and refuses it."""
    await receive()
    await answer(send, b"no")


def by_http_client(port: int, body: bytes) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/", body)
    return connection.getresponse().read()


def by_http_client_in_chunks(port: int, body: bytes) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    parts = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    connection.request("POST", "/", parts, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    return connection.getresponse().read()


def by_http_client_that_closes(port: int, body: bytes) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/", body, headers={"Connection": "close"})
    return connection.getresponse().read()


def by_httpx(port: int, body: bytes) -> bytes:
    return httpx.post(f"http://127.0.0.1:{port}/", content=body, timeout=60).content


def by_httpx_in_chunks(port: int, body: bytes) -> bytes:
    def parts() -> Iterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    return httpx.post(f"http://127.0.0.1:{port}/", content=parts(), timeout=60).content


def _curl(port: int, body: bytes, *options: str) -> bytes:
    command = ["curl", "--silent", "--show-error", "--data-binary", "@-", *options, f"http://127.0.0.1:{port}/"]
    done = subprocess.run(command, input=body, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_curl(port: int, body: bytes) -> bytes:
    return _curl(port, body)


def by_curl_without_expect(port: int, body: bytes) -> bytes:
    return _curl(port, body, "--header", "Expect:")


CLIENTS = [
    by_http_client,
    by_http_client_in_chunks,
    by_http_client_that_closes,
    by_httpx,
    by_httpx_in_chunks,
    by_curl,
    by_curl_without_expect,
]


@pytest.mark.parametrize("application", [refusing, refusing_after_a_part])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_client_sees_the_answer_to_a_body_that_was_not_read(loop: Any, client: Callable[[int, bytes], bytes], application: Any) -> None:
    async def job(one: House) -> None:
        for length in LENGTHS:
            assert await asyncio.to_thread(client, one.port, b"x" * length) == b"no", length
        await one.count(0)

    run(application, job, loop=loop)


@pytest.mark.parametrize("client", [by_http_client, by_http_client_in_chunks, by_http_client_that_closes])
def test_without_lingering_the_same_clients_lose_the_answer(client: Callable[[int, bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above."""
    monkeypatch.setattr(LimitedProtocol, "linger", lambda self, takes_rest=True: self.transport.close())

    async def job(one: House) -> None:
        with pytest.raises((OSError, http.client.HTTPException)):
            await asyncio.to_thread(client, one.port, b"x" * LARGE)

    run(refusing, job)


def test_a_large_answer_reaches_a_client_that_still_sends() -> None:
    async def large(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"y" * 20_000_000)

    async def job(one: House) -> None:
        assert len(await asyncio.to_thread(by_http_client, one.port, b"x" * LARGE)) == 20_000_000

    run(large, job)


@pytest.mark.parametrize(
    ("sent", "closes"),
    [
        (POST % 65_000, False),
        (POST % 66_000, True),
        (POST.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n") % 10, True),  # the body may not come: what follows is no body
        (POST % 10 + b"x" * 10, False),
        (POST % 200_000 + b"x" * 200_000, True),
    ],
)
def test_an_answer_says_whether_it_is_the_last(sent: bytes, closes: bool) -> None:
    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        assert (b"connection: close" in head) == closes
        assert await reader.readexactly(2) == b"no"
        if closes:
            writer.write(GET)
            assert await reader.read() == b""  # no second answer
            writer.close()
            await one.count(0)

    run(refusing, job)


@pytest.mark.parametrize("large", [False, True])
def test_a_connection_stays_open_after_a_body_that_was_read(large: bool) -> None:
    async def counting(scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await answer(send, b"%08d" % size)

    async def job(one: House) -> None:
        reader, writer = await one.connect()
        length = 5_000_000 if large else 5
        for expect in (b"", b"expect: 100-continue\r\n"):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n" % (expect, length))
            if expect:
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            writer.write(b"x" * length)
            assert b"connection" not in await reader.readuntil(b"\r\n\r\n")
            assert int(await reader.readexactly(8)) == length
        assert len(one.server.server_state.connections) == 1

    run(counting, job)


@pytest.mark.parametrize(("declared", "most"), [(b"content-length: 1000000000", 20_000_000), (b"transfer-encoding: chunked", 40_000_000)])
def test_no_more_is_discarded_than_the_limit(declared: bytes, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """``most``: the limit, if any of such a body is taken, and what the sockets hold."""
    monkeypatch.setattr(connections, "_LAST_SECONDS", 0.0)

    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n" + declared + b"\r\n\r\n")
        assert (await reader.readuntil(b"no")).startswith(b"HTTP/1.1 200")
        sent = 0
        with pytest.raises(OSError):
            while sent < 200_000_000:
                writer.write(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
                await writer.drain()
                sent += 100_000
        assert sent <= most
        await one.count(0)

    run(refusing, job, linger_bytes=10_000_000)


@pytest.mark.parametrize(("passed", "is_open"), [((499,), True), ((501,), False), ((499,) * 6, True), ((499,) * 8, False)])
def test_a_body_is_discarded_for_a_limited_time(passed: tuple[int, ...], is_open: bool) -> None:
    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(POST % 1_000_000)
        await reader.readuntil(b"no")
        for number, seconds in enumerate(passed):
            writer.write(b"x" * 10)
            await one.all(_has_discarded(10 * (number + 1)))
            one.pass_seconds(seconds)
        await one.count(int(is_open))

    run(refusing, job, linger_seconds=3500, linger_quiet_seconds=500)


def _has_discarded(size: int) -> Callable[[Any], bool]:
    return lambda protocol: bool(protocol._discarded == size)


def test_a_lingering_connection_gives_its_place_to_a_new_one() -> None:
    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(POST % 1_000_000)
        await reader.readuntil(b"no")
        others = [await one.connect(), await one.connect()]
        for other, sending in others:
            sending.write(GET)
            await other.readuntil(b"no")
        await one.count(2)
        await one.all(lambda protocol: protocol._discarded is None)

    run(refusing, job, connections=2)


def test_a_client_sees_why_its_head_is_too_large() -> None:
    async def job(one: House) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=60)

        def send() -> int:
            connection.request("GET", "/", headers={"a": "b" * 30_000_000})
            return connection.getresponse().status

        assert await asyncio.to_thread(send) == 431
        connection.close()

    run(refusing, job)


def test_an_orderly_stop_ends_lingering() -> None:
    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(POST % 1_000_000)
        await reader.readuntil(b"no")
        await one.count(1)
        for protocol in list(one.server.server_state.connections):
            protocol.shutdown()
        await one.count(0)

    run(refusing, job)


def test_what_is_discarded_is_kept_nowhere() -> None:
    """Counts the bytes that wait in the connection's buffers while a body is discarded."""

    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(POST % LARGE)
        await reader.readuntil(b"no")
        (protocol,) = one.server.server_state.connections
        assert isinstance(protocol, LimitedProtocol)
        for _ in range(30):
            writer.write(b"x" * 1_000_000)
            await writer.drain()
            assert not protocol.cycle.body
        await one.all(lambda each: each._discarded == 30_000_000)

    run(refusing, job)
