"""Two server processes on one database: what one acknowledges, the other answers by from its next request on."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.mongo.servers import fresh_url
from tests.served import KEY, NOON, ROOT, Served

ORIGIN = "http://fhir.test"
ROW = "Observation/adult-hemoglobin"
ROUNDS, MANY = 250, 2500  # each takes four steps: granted, read, revoked, read


class Pair(NamedTuple):
    """Where both processes listen, and tokens that both take: of the institution's feed, and of a proxy."""

    ports: tuple[int, int]
    feed: str
    proxy: str
    consent: dict[str, Any]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    url = fresh_url()
    served = Served(url, origin=ORIGIN)
    feed, proxy = served.token(), served.app_token("proxy-full", "adult")
    consent = served.get(feed, "Consent/proxy-full-of-adult").json
    assert served.get(proxy, ROW).status == 200
    served.close()
    ports = _free_port(), _free_port()
    children = [_server(url, port) for port in ports]
    try:
        for port, child in zip(ports, children, strict=True):
            _wait(port, child)
        yield Pair(ports, feed, proxy, consent)
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(20)


def _server(url: str, port: int) -> subprocess.Popen[bytes]:
    outer = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_SERVER_")}
    clock = {"FHIR_SERVER_CLOCK": NOON}
    settings = {"FHIR_SERVER_MODE": "test", "FHIR_SERVER_ORIGIN": ORIGIN, "FHIR_SERVER_STORE": url, "FHIR_SERVER_KEY": KEY}
    command = [sys.executable, "-m", "fhir_server", "serve", "--port", str(port)]
    return subprocess.Popen(command, env=outer | settings | clock, cwd=ROOT)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(port: int, child: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert child.poll() is None, "the server ended"
        try:
            if httpx.get(f"http://127.0.0.1:{port}/fhir/metadata", timeout=1).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server does not answer")


class Asker:
    """One process, asked as the feed or as the proxy."""

    def __init__(self, client: httpx.AsyncClient, port: int, pair: Pair) -> None:
        self._client, self._base, self._pair = client, f"http://127.0.0.1:{port}/fhir/", pair

    async def read(self) -> bool:
        """Whether the proxy is shown the row, by read and by search alike."""
        headers = {"authorization": f"Bearer {self._pair.proxy}"}
        answer = await self._client.get(self._base + ROW, headers=headers)
        assert answer.status_code in (200, 404), answer.text
        return answer.status_code == 200

    async def found(self) -> bool:
        headers = {"authorization": f"Bearer {self._pair.proxy}"}
        answer = await self._client.get(self._base + "Observation?_id=adult-hemoglobin&_summary=count", headers=headers)
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["total"])

    async def grant(self, status: str) -> None:
        headers = {"authorization": f"Bearer {self._pair.feed}", "content-type": "application/fhir+json"}
        body = json.dumps({**self._pair.consent, "status": status})
        answer = await self._client.put(self._base + "Consent/proxy-full-of-adult", content=body, headers=headers)
        assert answer.status_code == 200, answer.text


async def raced(pair: Pair, rounds: int) -> tuple[int, list[str]]:
    """How many answers were judged, and which were stale."""
    judged, stale = 0, []
    async with httpx.AsyncClient(timeout=60) as client:
        askers = [Asker(client, port, pair) for port in pair.ports]
        going = True

        async def busy(asker: Asker) -> None:
            """Readings that never stop, so that plans are in use and made again while grants change."""
            while going:
                await asker.read()

        others = [asyncio.create_task(busy(asker)) for asker in askers]
        for number in range(rounds):
            one, other = askers[number % 2], askers[1 - number % 2]
            for status in ("inactive", "active"):
                await one.grant(status)
                for name, seen in (("read", await other.read()), ("search", await other.found()), ("own", await one.read())):
                    judged += 1
                    if seen is not (status == "active"):
                        stale.append(f"round {number}: {name} after {status}")
        going = False
        await asyncio.gather(*others)
    return judged, stale


def test_what_one_process_revokes_the_other_does_not_serve(pair: Pair) -> None:
    judged, stale = asyncio.run(raced(pair, ROUNDS))
    assert stale == []
    assert judged == ROUNDS * 6


@pytest.mark.slow
def test_what_one_process_revokes_the_other_does_not_serve_ten_thousand_times(pair: Pair) -> None:
    judged, stale = asyncio.run(raced(pair, MANY))
    assert stale == [] and judged >= 10_000
