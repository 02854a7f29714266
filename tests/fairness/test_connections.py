"""Clocks and limits of connections, on a server in this process with real sockets.

The loop's clock is moved by the tests, so that nothing depends on the speed of the machine.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhir_server.web import connections
from fhir_server.web.connections import LimitedProtocol
from fhir_server.web.security_headers import security_headers
from tests.fairness.house import GET, POST, House, answer, reading, refusing, run


@pytest.mark.parametrize(("sent", "status"), [(b"", b""), (b"GET / HT", b"HTTP/1.1 408"), (GET[:-2] + b"x: ", b"HTTP/1.1 408")])
def test_a_head_that_does_not_end_is_cut_off(sent: bytes, status: bytes) -> None:
    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(sent)
        await one.count(1)
        await one.all(lambda protocol: protocol._in_head or not sent)
        one.pass_seconds(999)
        await one.count(1)
        one.pass_seconds(2)
        assert (await reader.read()).startswith(status)
        await one.count(0)

    run(reading, job)


def test_the_second_head_of_a_connection_has_a_clock_too() -> None:
    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(GET)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200") and await reader.readexactly(1) == b"0"
        one.pass_seconds(5000)  # idle: uvicorn's own clock
        await one.count(1)
        writer.write(GET[:8])
        await one.all(lambda protocol: protocol._in_head)
        one.pass_seconds(1001)
        assert (await reader.read()).startswith(b"HTTP/1.1 408")

    run(reading, job)


@pytest.mark.parametrize(("passed", "is_cut"), [((1999,), False), ((2001,), True), ((1500, 1500), False), ((1500, 1500, 1500), True)])
def test_a_body_that_does_not_come_is_cut_off(passed: tuple[int, ...], is_cut: bool) -> None:
    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(POST % 100)
        await one.count(1)
        await one.all(lambda protocol: protocol.cycle is not None)
        for seconds in passed:
            before = [protocol._quiet_until for protocol in one.server.server_state.connections]
            writer.write(b"x")
            await one.all(lambda protocol, before=before: protocol._quiet_until not in before)
            one.pass_seconds(seconds)
        if is_cut:
            assert (await reader.read()).startswith(b"HTTP/1.1 408")
            await one.count(0)
        else:
            writer.write(b"x" * (100 - len(passed)))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200") and await reader.readexactly(3) == b"100"

    run(reading, job)


def test_a_server_that_does_not_read_blames_no_client() -> None:
    async def job(one: House) -> None:
        release = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await release.wait()
            await reading(scope, receive, send)

        one.server.config.loaded_app = slow
        reader, writer = await one.connect()
        writer.write(POST % 10_000_000)
        writer.write(b"x" * 10_000_000)
        await one.count(1)
        await one.all(lambda protocol: protocol.flow.read_paused)
        one.pass_seconds(100_000)
        release.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200") and await reader.readexactly(8) == b"10000000"

    run(reading, job)


def test_of_a_body_that_nobody_reads_little_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_LAST_SECONDS", 0.0)

    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(POST % 1_000_000_000)
        assert (await reader.readuntil(b"no")).startswith(b"HTTP/1.1 200")
        with pytest.raises(OSError):
            for _ in range(10_000):
                writer.write(b"x" * 100_000)
                await writer.drain()
        await one.count(0)

    run(refusing, job)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 98 + b"\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 60_000 + b"\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 1_000_000, b"431"),
        (b"GET /" + b"b" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"431"),
    ],
)
def test_a_head_has_limits(head: bytes, status: bytes) -> None:
    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(head)
        assert (await reader.readuntil(b"\r\n"))[9:12] == status

    run(reading, job)


@pytest.mark.parametrize(("head", "status"), [(b"GET /" + b"b" * 70_000, 431), (b"no HTTP\r\n\r\n", 400), (b"GET / HT", 408)])
def test_refusals_before_the_application_have_security_headers(head: bytes, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = security_headers("https://records.example")
    monkeypatch.setattr(LimitedProtocol, "security_headers", headers)

    async def job(one: House) -> None:
        reader, writer = await one.connect()
        writer.write(head)
        if status == 408:
            await one.count(1)
            await one.all(lambda protocol: protocol._in_head)
            one.pass_seconds(1001)
        answer = (await reader.read()).split(b"\r\n")
        assert int(answer[0].split()[1]) == status
        assert {b"%s: %s" % header for header in headers} <= set(answer)

    run(reading, job)


def test_a_new_connection_takes_the_place_of_the_longest_waiting() -> None:
    async def job(one: House) -> None:
        release = asyncio.Event()

        async def held(scope: Any, receive: Any, send: Any) -> None:
            await release.wait()
            await answer(send, b"done")

        one.server.config.loaded_app = held
        busy = await one.connect()
        busy[1].write(GET)
        await one.count(1)
        await one.all(lambda protocol: not protocol._waits_since)
        waiting = []
        for number in range(2, 6):
            waiting.append(await one.connect())
            waiting[-1][1].write(b"GET / HT")
            await one.count(number)
        honest = await one.connect()
        assert await waiting[0][0].read() == b""
        await one.count(5)
        honest[1].write(GET)
        release.set()
        for reader, _ in (honest, busy):
            assert await reader.readuntil(b"done")

    run(reading, job, connections=5)


def test_a_client_that_takes_no_answer_is_cut_off() -> None:
    async def job(one: House) -> None:
        async def large(scope: Any, receive: Any, send: Any) -> None:
            await answer(send, b"x" * 100_000_000)

        one.server.config.loaded_app = large
        reader, writer = await one.connect()
        writer.write(GET)
        await one.count(1)
        await one.all(lambda protocol: protocol.flow.write_paused)
        await reader.readexactly(3_000_000)  # it took a part
        one.pass_seconds(2001)
        await one.count(1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while (before := [one.transport.get_write_buffer_size() for one in one.server.server_state.connections]) != await _later(one):
            pass
        assert before[0] > 0
        one.pass_seconds(2001)
        one.pass_seconds(2001)
        await one.count(0)

    run(reading, job)


async def _later(one: House) -> list[int]:
    await asyncio.sleep(0.05)
    return [each.transport.get_write_buffer_size() for each in one.server.server_state.connections]
