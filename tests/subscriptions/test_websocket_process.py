"""A server process as an operator runs it, and a subscriber's websocket over the network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.settings import OperationLevel
from fhir_server.web.websockets import GOING_AWAY, POLICY
from tests.mongo.server_processes import ORIGIN, Process
from tests.operation.running import ask_for
from tests.served import Served
from tests.subscriptions.environment import lab, value
from tests.subscriptions.raw_websocket import RawClient
from tests.subscriptions.websockets import criteria_on_websocket, topic_on_websocket
from tests.waiting import HANG


class Site:
    """A server process, and a client with an access token."""

    def __init__(self, url: str) -> None:
        served = Served(url, seeds=False, origin=ORIGIN, at=datetime.now(UTC).isoformat())
        self.token = served.token()
        served.close()
        self.server = Process(url, CLOCK="")
        self.http = httpx.Client(base_url=f"{self.server.base}/", headers={"authorization": f"Bearer {self.token}"}, timeout=HANG)

    def post(self, body: dict[str, Any]) -> str:
        answer = self.http.post(body["resourceType"], json=body, headers={"content-type": "application/fhir+json"})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def operate(self, level: OperationLevel) -> None:
        asyncio.run(ask_for(self.server.url, level))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(f"sqlite:///{tmp_path / 'fhir.sqlite'}")
    try:
        one.server.await_answer()
        yield one
    finally:
        one.http.close()
        one.server.kill()


def run(job: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(HANG):
            await job()

    asyncio.run(main())


def test_notifications_come_over_the_network_until_the_server_stops(site: Site) -> None:
    site.post({"resourceType": "Patient"})
    topic, criteria = site.post(topic_on_websocket()), site.post(criteria_on_websocket("Observation"))
    found = site.http.get(f"Subscription/{topic}/$get-ws-binding-token").json()["parameter"]
    token = next(one["valueString"] for one in found if one["name"] == "token")

    async def job() -> None:
        port = site.server.port
        first, second = await RawClient.open(port), await RawClient.open(port, authorization=f"Bearer {site.token}")
        first.say(f"bind-with-token {token}")
        second.say(f"bind {criteria}")
        assert value(json.loads(await first.hear()), "type") == "handshake" and await second.hear() == f"bound {criteria}"
        body = {name: part for name, part in lab().items() if name != "subject"}
        written = await asyncio.to_thread(site.post, body)
        told = json.loads(await first.hear())
        assert told["entry"][1]["fullUrl"].endswith(f"/Observation/{written}") and await second.hear() == f"ping {criteria}"
        site.server.process.terminate()
        assert [await first.end(), await second.end()] == [GOING_AWAY, GOING_AWAY]

    run(job)
    site.server.process.wait(HANG)


def test_what_opens_no_websocket_says_so(site: Site) -> None:
    async def job() -> None:
        port = site.server.port
        refused = await RawClient.open(port, authorization="Bearer x")
        assert refused.status == 401 and refused.headers[b"x-content-type-options"] == b"nosniff" and b"OperationOutcome" in refused.body
        assert (await RawClient.open(port, "/fhir/websocket")).status == 404
        wrong = await RawClient.open(port)
        wrong.say("hello")
        assert await wrong.end() == POLICY

    run(job)
    plain = httpx.get(f"{site.server.address}/websocket", timeout=HANG)
    assert plain.status_code == 426 and plain.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("level", ["read-only", "maintenance"])
def test_a_server_that_writes_nothing_opens_no_websocket(site: Site, level: OperationLevel) -> None:
    site.operate(level)

    async def job() -> None:
        while (refused := await RawClient.open(site.server.port)).status == 101:  # until the process has read it
            refused.writer.close()
        assert refused.status == 503 and refused.headers[b"retry-after"] == b"60" and b"OperationOutcome" in refused.body

    run(job)
