"""A killed server leaves every transaction Bundle stored completely or not at all, and keeps every acknowledged one."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.mongo.server_processes import ORIGIN, Process
from tests.mongo.shared_mongod import end_transactions_of_the_dead, fresh_url
from tests.served import Served
from tests.waiting import HANG, happened

KILLS, MANY = 3, 200
LANES, PARTS = 6, 3
LEAST = 3  # minimum number of Bundles acknowledged before a kill
PATIENT = {"resourceType": "Patient", "id": "p"}
ROUND, JOB = "urn:round", "urn:job"


@pytest.mark.parametrize("scheme", ["sqlite", "mongodb"])
def test_killed_server_keeps_whole_and_all_acknowledged_bundles(scheme: str, tmp_path: Path) -> None:
    asyncio.run(Killing(_url(scheme, tmp_path)).require_whole(KILLS))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["sqlite", "mongodb"])
def test_two_hundred_server_kills_keep_all_acknowledged_bundles(scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killing = Killing(_url(scheme, tmp_path))
    asyncio.run(killing.require_whole(MANY))
    with capsys.disabled():
        print(
            f"\n{scheme}: {MANY} kills, {killing.acknowledged} Bundles acknowledged, {killing.cut} cut off: {killing.stored} of them stored"
        )
    assert killing.stored and killing.stored < killing.cut


def _url(scheme: str, folder: Path) -> str:
    return f"sqlite:///{folder / 'fhir.sqlite'}" if scheme == "sqlite" else fresh_url()


class Killing:
    """One store with servers that are killed one after the other.

    ``cut``: number of Bundles sent and not acknowledged.  ``stored``: how many of these are stored.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.acknowledged = self.cut = self.stored = 0
        self._chance = random.Random(11)
        served = Served(url, seeds=False, origin=ORIGIN)
        token = served.token()
        assert served.request(token, "PUT", "Patient/p", body=PATIENT).status == 201
        served.close()
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/fhir+json"}

    async def require_whole(self, kills: int) -> None:
        rows: dict[int, int] = {}
        sent: dict[str, bool] = {}
        for number in range(kills + 1):
            process = Process(self.url)
            try:
                await asyncio.to_thread(process.await_answer)
                async with httpx.AsyncClient(base_url=process.base, headers=self._headers, timeout=HANG) as client:
                    if number:
                        rows[number - 1] = await self._check(client, number - 1, sent)
                    if number == kills:
                        await self._require_all(client, rows)
                        break
                    sent = await self._load(client, number, process)
            finally:
                process.kill()
        assert self.acknowledged >= kills * LEAST

    async def _load(self, client: httpx.AsyncClient, number: int, process: Process) -> dict[str, bool]:
        """Send Bundles, kill the server, and return the Bundles sent with whether each was acknowledged."""
        sent: dict[str, bool] = {}
        enough = asyncio.Event()

        async def lane(lane: int) -> None:
            before, turn = "", 0
            while True:
                job = f"r{number}-{lane}-{turn}"
                sent[job] = False
                try:
                    answer = await client.post("", content=json.dumps(_bundle(number, job, before)))
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                sent[job] = True
                if sum(sent.values()) >= LEAST:
                    enough.set()
                before, turn = job, turn + 1

        lanes = [asyncio.create_task(lane(one)) for one in range(LANES)]
        await happened(enough, lanes)
        await asyncio.sleep(self._chance.random() * 0.3)
        process.kill()
        await asyncio.gather(*lanes)
        if self.url.startswith("mongodb"):
            await asyncio.to_thread(end_transactions_of_the_dead)
        return sent

    async def _check(self, client: httpx.AsyncClient, number: int, sent: dict[str, bool]) -> int:
        """Check every row of a round and return the number of rows."""
        rows: dict[str, Any] = {}
        path = f"{client.base_url}Observation?identifier={ROUND}|r{number}&_count=1000"
        while path:
            page = (await client.get(path)).json()
            rows |= {entry["resource"]["id"]: entry["resource"] for entry in page.get("entry", [])}
            path = next((f"{client.base_url}{link['url'].split('/fhir/')[1]}" for link in page["link"] if link["relation"] == "next"), "")
        there = {id.rpartition("-")[0] for id in rows}
        assert set(rows) == {f"{job}-{part}" for job in there for part in range(PARTS)}
        assert {job for job, acknowledged in sent.items() if acknowledged} <= there <= set(sent)
        for job in there:
            lane, _, turn = job.rpartition("-")
            amended = rows[f"{job}-0"]["status"] == "amended"
            assert amended is (f"{lane}-{int(turn) + 1}" in there), job
            assert rows[f"{job}-0"]["meta"]["versionId"] == ("2" if amended else "1")
        cut = [job for job, acknowledged in sent.items() if not acknowledged]
        self.acknowledged += len(sent) - len(cut)
        self.cut += len(cut)
        self.stored += len(there.intersection(cut))
        return len(rows)

    async def _require_all(self, client: httpx.AsyncClient, rows: dict[int, int]) -> None:
        """Check that later kills removed no rows of earlier rounds."""
        for number, count in rows.items():
            counted = (await client.get(f"Observation?identifier={ROUND}|r{number}&_summary=count")).json()
            assert counted["total"] == count, number


def _bundle(number: int, job: str, before: str) -> dict[str, Any]:
    """Return a Bundle with the rows of a job and a change of the first row of the previous job."""
    rows = [_row(number, f"{job}-{part}", "final") for part in range(PARTS)]
    rows += [_row(number, f"{before}-0", "amended")] if before else []
    entries = [{"resource": row, "request": {"method": "PUT", "url": f"Observation/{row['id']}"}} for row in rows]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _row(number: int, id: str, status: str) -> dict[str, Any]:
    identifiers = [{"system": ROUND, "value": f"r{number}"}, {"system": JOB, "value": id.rpartition("-")[0]}]
    return {
        "resourceType": "Observation", "id": id, "status": status, "identifier": identifiers,
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}, "subject": {"reference": "Patient/p"},
    }  # fmt: skip
