"""A process that is killed while writing keeps all acknowledged writes and leaves no job partly stored."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fhir_server.search.filters import EVERYTHING, Has, TokenIs
from fhir_server.store import LogEntry, Store, open_store
from tests.mongo.shared_mongod import end_transactions_of_the_dead, fresh_url
from tests.store.samples import ANYONE, OBS, found, record, token

ROUNDS = {"sqlite": 10, "mongodb": 10}
MANY = 200
PARTS = 4
MOST = 40  # upper limit of the acknowledged jobs read before a kill; a few more may follow


async def _write_for_ever(url: str, name: str) -> None:
    store = open_store(url)

    async def one(number: int) -> None:
        async def job(transaction: Any) -> None:
            for part in range(PARTS):
                await transaction.put(record(f"{name}-{number}-{part}", f"p{number % 5}", entries=[token("job", f"{name}-{number}")]))
            if number % 3 == 0:
                await transaction.put(record(f"{name}-{number}-0", f"p{number % 7}", version=2, entries=[token("job", f"{name}-{number}")]))

        await store.write(job)
        await store.append_log("audit", [LogEntry(f"{name}-{number}".encode())])
        os.write(1, f"{name}-{number}\n".encode())

    number = 0
    while True:
        await asyncio.gather(*(one(number + n) for n in range(8)))
        number += 8


def _url(scheme: str, folder: Path) -> str:
    return f"sqlite:///{folder / 'x.db'}" if scheme == "sqlite" else fresh_url()


@pytest.mark.parametrize("scheme", ROUNDS)
def test_killed_process_keeps_whole_and_all_acknowledged_writes(scheme: str, tmp_path: Path) -> None:
    require_whole(_url(scheme, tmp_path), ROUNDS[scheme])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ROUNDS)
def test_two_hundred_kills_lose_no_acknowledged_write(scheme: str, tmp_path: Path) -> None:
    require_whole(_url(scheme, tmp_path), MANY)


def require_whole(url: str, rounds: int) -> None:
    """Kill a writer ``rounds`` times and check the store after each kill."""
    chance = random.Random(7)
    acknowledged: set[str] = set()
    for number in range(rounds):
        child = subprocess.Popen([sys.executable, "-m", __name__, url, f"r{number}"], stdout=subprocess.PIPE, cwd=_root())
        assert child.stdout
        least = chance.randrange(1, MOST)
        first = b"".join(child.stdout.readline() for _ in range(least))
        time.sleep(chance.random() * 0.02)  # so that the kill does not always follow directly after a job
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        child.stdout.close()
        child.wait()
        if url.startswith("mongodb"):
            end_transactions_of_the_dead()
        lines = set((first + rest).decode().split("\n")[:-1])
        assert len(lines) >= least, "the writer ended by itself"
        acknowledged |= lines
        asyncio.run(_check(url, acknowledged, f"r{number}-"))


async def _check(url: str, acknowledged: set[str], recent: str) -> None:
    store = open_store(url)
    try:
        ids = await _all(store)
        jobs = {id.rpartition("-")[0] for id in ids}
        assert acknowledged <= jobs
        assert {f"{job}-{part}" for job in jobs for part in range(PARTS)} == set(ids)
        for job in [job for job in jobs if job.startswith(recent)]:
            assert sorted(await found(store, Has("job", TokenIs("s", job)))) == [f"{job}-{part}" for part in range(PARTS)]
            async with store.snapshot() as snapshot:
                versions = await snapshot.versions(OBS, f"{job}-0", ANYONE)
            assert len(versions) == (2 if int(job.rpartition("-")[2]) % 3 == 0 else 1)
        assert acknowledged <= {line.decode() for _, line in await store.read_log("audit", limit=10**6)}
    finally:
        await store.close()


async def _all(store: Store) -> list[str]:
    async with store.snapshot() as snapshot:
        return [one.id for one in (await snapshot.find(OBS, EVERYTHING, ANYONE, limit=10**6)).rows]


def _root() -> Path:
    return Path(__file__).parents[2]


if __name__ == "__main__":
    asyncio.run(_write_for_ever(*sys.argv[1:]))
