"""Stops under load: after a kill no answered request lacks its line, after an orderly stop no line is stored twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.audit import LOG_NAME, AuditLog
from fhir_server.audit.chain import ChainKeys
from fhir_server.audit.verification import verify
from fhir_server.errors import Problem
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import Store, open_store, store_file
from tests.mongo.server_processes import ORIGIN, Process
from tests.mongo.shared_mongod import end_transactions_of_the_dead, fresh_url
from tests.served import KEY, Served
from tests.waiting import HANG, happened

LANES, LEAST = 6, 12  # clients; answers before a stop
PATIENT = {"resourceType": "Patient", "id": "p"}
BATCHED = 'import os\nos.environ["FHIR_SERVER_AUDIT"] = "batched"'
TWICE = """
from fhir_server.audit import AuditLog
added = AuditLog.with_write
def with_write(log, request, context):
    add = added(log, request, context)
    return lambda transaction, status: add(transaction, status) and None
AuditLog.with_write = with_write
"""  # a write's line is stored with it and again


def _url(scheme: str, folder: Path) -> str:
    return f"sqlite:///{folder / 'fhir.sqlite'}" if scheme == "sqlite" else fresh_url()


@pytest.mark.parametrize("scheme", ["sqlite", "mongodb"])
def test_killed_server_has_a_line_for_every_answered_request(scheme: str, tmp_path: Path) -> None:
    stopping = Stopping(_url(scheme, tmp_path), Process.kill)
    asyncio.run(stopping.run(2))
    assert stopping.answered >= 2 * LEAST and stopping.unrecorded() == []
    assert stopping.unrecorded_writes() == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["sqlite", "mongodb"])
def test_two_hundred_kills_leave_no_request_without_a_line(scheme: str, tmp_path: Path) -> None:
    stopping = Stopping(_url(scheme, tmp_path), Process.kill)
    asyncio.run(stopping.run(200))
    assert stopping.answered >= 200 * LEAST and stopping.unrecorded() == []
    assert stopping.unrecorded_writes() == []


def test_kill_check_detects_lines_that_were_not_awaited(tmp_path: Path) -> None:
    stopping = Stopping(_url("sqlite", tmp_path), Process.kill, BATCHED)
    for _ in range(20):  # a kill may happen to follow directly after the lines were stored
        asyncio.run(stopping.run(1))
        if stopping.unrecorded() and stopping.unrecorded_writes():
            return
    pytest.fail("No kill was found to lose a line.")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["sqlite", "mongodb"])
def test_two_hundred_orderly_stops_under_load_store_each_line_once(scheme: str, tmp_path: Path) -> None:
    stopping = Stopping(_url(scheme, tmp_path), Process.stop)
    asyncio.run(stopping.run(200))
    assert stopping.unrecorded() == [] and stopping.repeated() == [] and stopping.unrecorded_writes() == []


@pytest.mark.parametrize("scheme", ["sqlite", "mongodb"])
def test_orderly_stop_of_a_server_stores_each_line_once(scheme: str, tmp_path: Path) -> None:
    stopping = Stopping(_url(scheme, tmp_path), Process.stop)
    asyncio.run(stopping.run(1))
    assert stopping.unrecorded() == [] and stopping.repeated() == [] and stopping.unrecorded_writes() == []


def test_stop_check_detects_lines_that_are_stored_twice(tmp_path: Path) -> None:
    stopping = Stopping(_url("sqlite", tmp_path), Process.stop, TWICE)
    asyncio.run(stopping.run(1))
    assert stopping.unrecorded() == [] and stopping.repeated() != []


class Stopping:
    """One store with servers that are stopped one after the other while clients read, search and write."""

    def __init__(self, url: str, stop: Callable[[Process], None], fault: str = "") -> None:
        self.url = url
        self._stop = stop
        self._fault = fault
        self._answered: list[str] = []
        self._starts = 0
        self._chance = random.Random(5)
        served = Served(url, seeds=False, origin=ORIGIN)
        token = served.token()
        assert served.request(token, "PUT", "Patient/p", body=PATIENT).status == 201
        served.close()
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/fhir+json"}

    @property
    def answered(self) -> int:
        return len(self._answered)

    async def run(self, stops: int) -> None:
        for _ in range(stops):
            process = Process(self.url, self._fault)
            try:
                await asyncio.to_thread(process.await_answer)
                await self._load(f"r{self._starts}", process)
            finally:
                process.kill()
            self._starts += 1

    async def _load(self, round: str, process: Process) -> None:
        enough, before = asyncio.Event(), self.answered

        async def lane(number: int) -> None:
            async with httpx.AsyncClient(base_url=process.base, headers=self._headers, timeout=HANG) as client:
                turn = 0
                while True:
                    name = f"{round}-{number}-{turn}"
                    try:
                        await _ask(client, name, turn % 3)
                    except httpx.TransportError:
                        return
                    self._answered.append(name)
                    if self.answered - before >= LEAST:
                        enough.set()
                    turn += 1

        lanes = [asyncio.create_task(lane(number)) for number in range(LANES)]
        await happened(enough, lanes)
        await asyncio.sleep(self._chance.random() * 0.3)  # so that a stop does not always follow directly after an answer
        await asyncio.to_thread(self._stop, process)
        await asyncio.gather(*lanes)
        if self.url.startswith("mongodb"):
            await asyncio.to_thread(end_transactions_of_the_dead)

    def _recorded(self) -> Counter[str]:
        """How many lines each request has after the next start of a server.  The chain must be whole."""

        async def read() -> Counter[str]:
            store = open_store(self.url)
            log = AuditLog(store, ChainKeys(KEY), beside=store_file(self.url))
            await log.prepare()
            await log.close()
            assert (await verify(store, ChainKeys(KEY))).findings == []
            names: Counter[str] = Counter()
            async for event in _events(store):
                targets = [entity.get("what", {}).get("reference", "") for entity in event.get("entity", ())]
                names.update(target.partition("/")[2] for target in targets if target)
            await store.close()
            return names

        return asyncio.run(read())

    def unrecorded(self) -> list[str]:
        recorded = self._recorded()
        return [name for name in self._answered if name not in recorded]

    def unrecorded_writes(self) -> list[str]:
        """What is stored, answered or not, and has no line."""
        recorded = self._recorded()
        served = Served(self.url, seeds=False, origin=ORIGIN)
        token, path, stored = served.token(), "Basic?_count=500&_elements=id", list[str]()
        while path:
            page = served.request(token, "GET", path)
            stored += page.ids("Basic")
            links = {link["relation"]: link["url"] for link in page.json["link"]}
            path = links.get("next", "").removeprefix(f"{ORIGIN}/fhir/")
        served.close()
        assert stored
        return [name for name in stored if name not in recorded]

    def repeated(self) -> list[str]:
        return [name for name, count in self._recorded().items() if count > 1 and name.startswith("r")]


async def _ask(client: httpx.AsyncClient, name: str, turn: int) -> None:
    """Send a write, a read or a Bundle that names the resource ``name``."""
    basic = {"resourceType": "Basic", "id": name, "code": {"text": "x"}, "subject": {"reference": "Patient/p"}}
    entry = {"request": {"method": "PUT", "url": f"Basic/{name}"}, "resource": basic}
    match turn:
        case 0:
            answer = await client.put(f"Basic/{name}", content=json.dumps(basic))
        case 1:
            answer = await client.get(f"Basic/{name}")
        case _:
            bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
            answer = await client.post("", content=json.dumps(bundle))
    assert answer.status_code == (201, 404, 200)[turn], answer.text


async def _events(store: Store) -> AsyncIterator[dict[str, Any]]:
    after = 0
    while lines := await store.read_log(LOG_NAME, after):
        for _, line in lines:
            yield json.loads(line)["event"]
        after = lines[-1][0]


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "batched"])
def test_forty_stops_at_any_moment_store_each_line_once(durable: bool, tmp_path: Path) -> None:
    chance = random.Random(3)

    async def process(number: int) -> list[str]:
        """One server process: clients record events until it stops.  Returns those that were recorded before the stop."""
        store = open_store(f"sqlite:///{tmp_path / 'fhir.sqlite'}")
        log = AuditLog(store, ChainKeys(KEY), durable=durable)
        recorded: list[str] = []
        enough, wanted = asyncio.Event(), chance.randrange(30)  # counted in lines, so that a fast machine stops no earlier

        async def client(lane: int) -> None:
            for turn in range(200):
                name = f"{number}-{lane}-{turn}"
                await log.record_event(SecurityEvent("sign-in", username=name), 0)
                recorded.append(name)
                if len(recorded) >= wanted:
                    enough.set()

        clients = [asyncio.ensure_future(client(lane)) for lane in range(4)]
        if wanted:
            await happened(enough, clients)
        for _ in range(chance.randrange(100)):
            await asyncio.sleep(0)
        for one in clients:
            one.cancel()
        before = list(recorded)
        await _ended(clients)
        await log.close()
        await store.close()
        return before

    async def run() -> tuple[list[str], Counter[str]]:
        recorded = [name for number in range(40) for name in await process(number)]
        store = open_store(f"sqlite:///{tmp_path / 'fhir.sqlite'}")
        assert (await verify(store, ChainKeys(KEY))).findings == []
        names = Counter([event["agent"][0]["altId"] async for event in _events(store)])
        await store.close()
        return recorded, names

    recorded, names = asyncio.run(run())
    assert recorded and set(recorded) <= set(names) and set(names.values()) == {1}


async def _ended(clients: Sequence[asyncio.Future[None]]) -> None:
    for result in await asyncio.gather(*clients, return_exceptions=True):
        assert result is None or isinstance(result, asyncio.CancelledError | Problem)
