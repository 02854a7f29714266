"""Two server processes are restarted one after the other under load, as for a new version: nobody notices, nothing is lost."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import httpx

from fhir_server.audit import LOG_NAME
from fhir_server.store import open_store
from tests.mongo.server_processes import ORIGIN, Process
from tests.mongo.shared_mongod import forgetful_url
from tests.served import Served

ROW = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"}}

_TAKEN = 0.05  # seconds in which a request that was sent has been taken up, but hardly answered

# A process that does not write what is left of its audit when it ends, and has not had the time before.
HURRIED = """
from fhir_server import audit
audit._PAUSE = 3600
async def close(self):
    pass
audit.Auditor.close = close
"""


@dataclass
class Load:
    """What became of requests that a balancer sends to the processes in ``turns``."""

    token: str
    processes: list[Process]
    turns: list[int] = field(default_factory=lambda: [0, 1])
    acknowledged: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    going: bool = True

    async def write(self) -> None:
        async with httpx.AsyncClient(timeout=60, headers={"authorization": f"Bearer {self.token}", "connection": "close"}) as client:
            turn = 0
            while self.going:
                turn += 1
                process = self.processes[self.turns[turn % len(self.turns)]]
                try:
                    answer = await client.post(f"{process.base}/Observation", json=ROW)
                except httpx.HTTPError as error:
                    self.wrong.append(f"cut off: {error!r}")
                    continue
                if answer.status_code == 201:
                    self.acknowledged.append(answer.headers["location"].split("/Observation/")[1].partition("/")[0])
                else:
                    self.wrong.append(f"{answer.status_code} {answer.text}")

    async def more(self, count: int) -> None:
        """Wait until so many more writes are acknowledged."""
        least = len(self.acknowledged) + count
        async with asyncio.timeout(90):
            while len(self.acknowledged) < least:
                await asyncio.sleep(0.02)


async def restarted(load: Load, url: str, fault: str) -> None:
    writers = [asyncio.create_task(load.write()) for _ in range(4)]
    try:
        for number in (0, 1):
            await load.more(20)
            load.turns = [1 - number]
            await asyncio.sleep(_TAKEN)
            await asyncio.to_thread(load.processes[number].stop)
            await load.more(20)
            load.processes[number] = Process(url, fault)  # by this thread: a process ends with the one that started it
            await asyncio.to_thread(load.processes[number].await_answer)
            load.turns = [0, 1]
        await load.more(20)
    finally:
        load.going = False
        await asyncio.gather(*writers)


def rolled(fault: str = "") -> tuple[Load, set[str], int]:
    """The load; the ids of rows that are there afterwards; and how many creates the audit tells of."""
    url = forgetful_url()
    served = Served(url, origin=ORIGIN)
    token = served.token()
    served.close()
    load = Load(token, [Process(url, fault), Process(url, fault)])
    try:
        for process in load.processes:
            process.await_answer()
        asyncio.run(restarted(load, url, fault))
    finally:
        for process in load.processes:
            process.stop()
    served = Served(url, origin=ORIGIN, seeds=False)
    kept = {id for id in load.acknowledged if served.get(token, f"Observation/{id}").status == 200}
    served.close()
    return load, kept, asyncio.run(creates(url))


async def creates(url: str) -> int:
    store = open_store(url)
    found = after = 0
    while lines := await store.read_log(LOG_NAME, after):
        after = lines[-1][0]
        found += sum(json.loads(line)["event"].get("action") == "C" for _, line in lines)
    await store.close()
    return found


def test_rolling_restart_loses_no_request_write_or_audit_event() -> None:
    load, kept, audited = rolled()
    assert load.wrong == []
    assert len(load.acknowledged) >= 100 and kept == set(load.acknowledged)
    assert audited == len(load.acknowledged)


def test_restart_check_detects_lost_audit_events() -> None:
    load, _, audited = rolled(HURRIED)
    assert audited < len(load.acknowledged)
