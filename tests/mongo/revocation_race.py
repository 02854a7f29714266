"""Two server processes on one database: one creates and revokes a proxy grant, then the proxy reads through both."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from tests.mongo.server_processes import ORIGIN, Process
from tests.seeded import seeded
from tests.waiting import HANG

ROW = "Observation/adult-hemoglobin"
CONSENT = "Consent/proxy-full-of-adult"


class Pair(NamedTuple):
    """The FHIR base URLs of both processes, and tokens of the institution's feed and of a proxy, valid at both."""

    bases: tuple[str, str]
    feed: str
    proxy: str
    consent: dict[str, Any]


@contextmanager
def started(url: str, fault: str = "") -> Iterator[Pair]:
    """Fill this empty database with the seeds and start two processes on it.  ``fault`` is run in each process first."""
    served = seeded(url, origin=ORIGIN)
    feed, proxy = served.token(), served.app_token("proxy-full", "adult")
    consent = served.get(feed, CONSENT).json
    assert served.get(proxy, ROW).status == 200
    served.close()
    processes = Process(url, fault), Process(url, fault)
    try:
        for process in processes:
            process.await_answer()
        yield Pair((processes[0].base, processes[1].base), feed, proxy, consent)
    finally:
        for process in processes:
            process.stop()


@dataclass
class Race:
    """The counts of a race.

    ``judged``: responses checked.  ``stale``: responses that do not match the last acknowledged grant.  ``refused``: responses
    with status 503.  ``longest``: seconds of the slowest request.
    """

    pair: Pair
    judged: int = 0
    stale: list[str] = field(default_factory=list)
    refused: int = 0
    longest: float = 0.0

    async def run(self, going: Callable[[int], bool]) -> None:
        """In each round, revoke and restore a grant through one process.  Check three responses after each change."""
        async with httpx.AsyncClient(timeout=HANG) as client:
            busy = True

            async def read(base: str) -> None:
                """Read without pause, so that permissions are cached and recomputed while grants change."""
                while busy:
                    await self._read(client, base)

            others = [asyncio.create_task(read(base)) for base in self.pair.bases]
            try:
                number = 0
                while going(number):
                    one, other = self.pair.bases[number % 2], self.pair.bases[1 - number % 2]
                    for status in ("inactive", "active"):
                        await self._grant(client, one, status)
                        await self._judge(client, one, other, f"round {number}", status)
                    number += 1
            finally:
                busy = False
                await asyncio.gather(*others)

    async def _judge(self, client: httpx.AsyncClient, one: str, other: str, round: str, status: str) -> None:
        answers = (
            ("read", await self._read(client, other)),
            ("search", await self._found(client, other)),
            ("own", await self._read(client, one)),
        )
        for name, seen in answers:
            self.judged += 1
            if seen is not (status == "active"):
                self.stale.append(f"{round}: {name} after {status}")

    async def _read(self, client: httpx.AsyncClient, base: str) -> bool:
        """Return whether the proxy sees the row."""
        answer = await self._asked(client, "GET", f"{base}/{ROW}", self.pair.proxy)
        assert answer.status_code in (200, 404), answer.text
        return answer.status_code == 200

    async def _found(self, client: httpx.AsyncClient, base: str) -> bool:
        answer = await self._asked(client, "GET", f"{base}/Observation?_id=adult-hemoglobin&_summary=count", self.pair.proxy)
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["total"])

    async def _grant(self, client: httpx.AsyncClient, base: str, status: str) -> None:
        body = json.dumps({**self.pair.consent, "status": status})
        answer = await self._asked(client, "PUT", f"{base}/{CONSENT}", self.pair.feed, body)
        assert answer.status_code == 200, answer.text

    async def _asked(self, client: httpx.AsyncClient, method: str, url: str, token: str, body: str | None = None) -> httpx.Response:
        """Send the request until the response is not 503, and return the response."""
        headers = {"authorization": f"Bearer {token}", "content-type": "application/fhir+json"}
        while True:
            began = time.monotonic()
            answer = await client.request(method, url, content=body, headers=headers)
            self.longest = max(self.longest, time.monotonic() - began)
            if answer.status_code != 503:
                return answer
            assert answer.headers["retry-after"] == "1", answer.headers
            self.refused += 1
            await asyncio.sleep(0.1)
