"""Two server processes restart one after the other under load: no request fails and nothing is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx

from fhir_server.audit import LOG_NAME
from fhir_server.store import open_store
from tests.mongo.server_processes import ORIGIN, Process
from tests.mongo.shared_mongod import fresh_url
from tests.seeded import seeded
from tests.served import Served
from tests.waiting import HANG, until

ROW = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"}}

_numbers = count()

# Code for a process that adds a byte to a file for each request that it begins.
COUNTING = """
from pathlib import Path
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
begin = HttpToolsProtocol.on_headers_complete
def counted(self):
    begin(self)
    with Path({path!r}).open("ab") as file:
        file.write(b".")
HttpToolsProtocol.on_headers_complete = counted
"""

# Code for a process that does not write waiting audit events, neither periodically nor when it ends.
HURRIED = """
import os
from fhir_server import audit
from fhir_server.audit import line_queue
os.environ["FHIR_SERVER_AUDIT"] = "batched"
line_queue._PAUSE = 3600
async def close(self):
    pass
audit.AuditLog.close = close
"""


class Counted(Process):
    """A process that counts the requests it has begun.  ``sent`` is the number of requests sent to it."""

    def __init__(self, url: str, fault: str, folder: Path) -> None:
        self.sent = 0
        self._begun = folder / f"begun-{next(_numbers)}"
        self._begun.touch()
        super().__init__(url, COUNTING.format(path=str(self._begun)) + fault)

    def await_answer(self) -> None:
        super().await_answer()
        self._begun.write_bytes(b"")

    async def all_begun(self) -> None:
        """Wait until every sent request has begun.  Few of them are answered by then."""
        await until(lambda: self._begun.stat().st_size >= self.sent, "the process begins each request", every=0.001)


@dataclass
class Load:
    """The results of requests that a load balancer sends to the processes in ``turns``."""

    token: str
    processes: list[Counted]
    turns: list[int] = field(default_factory=lambda: [0, 1])
    acknowledged: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    going: bool = True

    async def write(self) -> None:
        async with httpx.AsyncClient(timeout=HANG, headers={"authorization": f"Bearer {self.token}", "connection": "close"}) as client:
            turn = 0
            while self.going:
                turn += 1
                process = self.processes[self.turns[turn % len(self.turns)]]
                process.sent += 1
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
        """Wait until ``count`` more writes are acknowledged."""
        least = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= least, "writes are acknowledged")


async def restarted(load: Load, url: str, fault: str, folder: Path, numbers: Sequence[int]) -> None:
    writers = [asyncio.create_task(load.write()) for _ in range(4)]
    try:
        for number in numbers:
            await load.more(20)
            load.turns = [1 - number]
            await load.processes[number].all_begun()
            await asyncio.to_thread(load.processes[number].stop)
            await load.more(20)
            load.processes[number] = Counted(url, fault, folder)  # in this thread: the process ends with the thread that started it
            await asyncio.to_thread(load.processes[number].await_answer)
            load.turns = [0, 1]
        await load.more(20)
    finally:
        load.going = False
        await asyncio.gather(*writers)


def rolled(folder: Path, fault: str = "", numbers: Sequence[int] = (0, 1)) -> tuple[Load, set[str], int]:
    """Restart these of two processes.

    Return the load, the ids of its rows that are stored afterwards, and the number of creates in the audit log.
    """
    url = fresh_url()
    served = seeded(url, origin=ORIGIN)
    token = served.token()
    served.close()
    load = Load(token, [Counted(url, fault, folder), Counted(url, fault, folder)])
    try:
        for process in load.processes:
            process.await_answer()
        asyncio.run(restarted(load, url, fault, folder, numbers))
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


def test_rolling_restart_loses_no_request_write_or_audit_event(tmp_path: Path) -> None:
    load, kept, audited = rolled(tmp_path)
    assert load.wrong == []
    assert len(load.acknowledged) >= 100 and kept == set(load.acknowledged)
    assert audited == len(load.acknowledged)


def test_restart_check_detects_lost_audit_events(tmp_path: Path) -> None:
    load, _, audited = rolled(tmp_path, HURRIED, (0,))
    assert audited < len(load.acknowledged)
