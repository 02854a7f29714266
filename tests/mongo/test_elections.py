"""The primary of three members is killed while programs write and read.

No acknowledged write is lost or partly stored.  No read ignores an acknowledged revocation.  Requests wait or get 503 with
Retry-After.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from fhir_server.errors import Problem
from fhir_server.search.filters import Has, TokenIs
from fhir_server.store.mongodb import MongoStore, schema
from tests.mongo.mongod import ReplicaSet
from tests.mongo.revocation_race import Race, started
from tests.store.samples import ANYONE, OBS, record, token
from tests.waiting import HANG, until

PARTS = 3
SURE = "from fhir_server.store.mongodb import schema; schema._CONFIRMED_SECONDS = 0.4"  # well below electionTimeoutMillis


@pytest.fixture(scope="module")
def members() -> Iterator[ReplicaSet]:
    bound = "oplogInitialFindMaxSeconds=5"  # how long a secondary waits for a dead primary
    replica_set = ReplicaSet(3, "--setParameter", bound, election=1000)
    yield replica_set
    replica_set.stop()


class Load:
    """Writers, revokers and readers of one database, each with its own client.  Errors are collected in ``wrong``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.going = True
        self.acknowledged: set[str] = set()
        self.kept: set[str] = set()
        self.revoked = 0
        self.wrong: list[str] = []
        self.refused = self.reads = 0
        self.longest = 0.0

    async def write(self, name: str) -> None:
        store = MongoStore(self.url)
        for number in count():
            if not self.going:
                break
            job = f"{name}-{number}"
            began = time.monotonic()
            if await self._tried(store.write(lambda tx, job=job: _parts(tx, job))):
                self.acknowledged.add(job)
            if await self._tried(store.key_values.put_if_absent("code", job, b"x", 2**62)):
                self.kept.add(job)
            self.longest = max(self.longest, time.monotonic() - began)
        await store.close()

    async def revoke(self) -> None:
        store = MongoStore(self.url)
        while self.going:
            if await self._tried(store.write(_bump)):
                self.revoked += 1
            await asyncio.sleep(0.01)
        await store.close()

    async def read(self) -> None:
        store = MongoStore(self.url)
        while self.going:
            await self._tried(self._read(store))
            await asyncio.sleep(0)
        await store.close()

    async def _read(self, store: MongoStore) -> None:
        least, sample = self.revoked, random.choice([*self.acknowledged, ""])
        async with store.snapshot() as snapshot:
            stamp = await snapshot.permission_epoch("p")
            if stamp.patient < least:
                self.wrong.append(f"stamp {stamp.patient} after {least} were acknowledged")
            page = await snapshot.find(OBS, Has("job", TokenIs("s", sample)), ANYONE, limit=PARTS + 1)
            if sample and len(page.rows) != PARTS:
                self.wrong.append(f"{sample} has {len(page.rows)} rows")
            latest = await snapshot.find(OBS, Has("every", TokenIs("s", "x")), ANYONE, limit=10**6)
            if len(latest.rows) % PARTS:
                self.wrong.append(f"a part of a transaction: {len(latest.rows)} rows")
        self.reads += 1

    async def _tried(self, attempt: Any) -> bool:
        """Return whether the attempt succeeded.  A refusal must have status 503."""
        try:
            await attempt
        except Problem as problem:
            if problem.status != 503:
                self.wrong.append(f"refused: {problem}")
            self.refused += 1
            return False
        return True


async def _parts(transaction: Any, job: str) -> None:
    for part in range(PARTS):
        entries = [token("job", job), *([token("every", "x")] if job.endswith("0") else [])]
        await transaction.put(record(f"{job}-{part}", "p", entries=entries))


async def _bump(transaction: Any) -> None:
    await transaction.advance_epoch("p")


async def survived(members: ReplicaSet, url: str, kills: int) -> Load:
    load = Load(url)
    first = MongoStore(url)
    await first.prepare()
    tasks = [asyncio.create_task(one) for one in (load.write("a"), load.write("b"), load.revoke(), load.read(), load.read())]
    try:
        for _ in range(kills):
            await asyncio.sleep(0.5 + random.random())
            primary = await _primary(members)
            before = len(load.acknowledged)
            primary.kill()
            await _progress(load, before)
            primary.start()
            await asyncio.to_thread(members.await_health)
        await _progress(load, len(load.acknowledged))
    finally:
        load.going = False
        _, hanging = await asyncio.wait(tasks, timeout=HANG)
    assert not hanging, hanging
    await asyncio.gather(*tasks)
    async with first.snapshot() as snapshot:
        for job in load.acknowledged:
            assert len((await snapshot.find(OBS, Has("job", TokenIs("s", job)), ANYONE, limit=9)).rows) == PARTS, job
        assert (await snapshot.permission_epoch("p")).patient >= load.revoked
    assert load.kept <= {key for key, _ in await first.key_values.list_all("code", 0)}
    await first.close()
    return load


async def _primary(members: ReplicaSet) -> Any:
    end = time.monotonic() + HANG
    while (primary := await asyncio.to_thread(members.primary)) is None:
        assert time.monotonic() < end, "no primary"
        await asyncio.sleep(0.1)
    return primary


async def _progress(load: Load, before: int) -> None:
    """Wait until writes are acknowledged again."""
    await until(lambda: len(load.acknowledged) >= before + 5, "writes are acknowledged again")


def through(members: ReplicaSet, name: str, kills: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(schema, "_CONFIRMED_SECONDS", 0.4)  # below electionTimeoutMillis of these members, as in production
    load = asyncio.run(survived(members, members.url.replace("{name}", name), kills))
    with capsys.disabled():
        print(
            f"\n{kills} primaries killed: {len(load.acknowledged)} transactions and {load.revoked} revocations acknowledged,"
            f" {load.reads} readings, {load.refused} refused with 503, longest stall {load.longest:.1f} s"
        )
    assert load.wrong == []
    assert len(load.acknowledged) > 10 * kills and load.reads > kills and load.longest < HANG


def test_acknowledged_writes_survive_killed_primaries(
    members: ReplicaSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    through(members, "quick", 2, monkeypatch, capsys)


@pytest.mark.slow
def test_acknowledged_writes_survive_twenty_killed_primaries(
    members: ReplicaSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    through(members, "slow", 20, monkeypatch, capsys)


def test_elections_never_serve_revoked_data_and_fail_only_with_503(members: ReplicaSet) -> None:
    served_through(members, "served", 2)


@pytest.mark.slow
def test_twenty_elections_never_serve_revoked_data(members: ReplicaSet, capsys: pytest.CaptureFixture[str]) -> None:
    race = served_through(members, "servedlong", 20)
    with capsys.disabled():
        print(f"\n20 primaries killed: {race.judged} answers judged, {race.refused} refused with 503, longest wait {race.longest:.1f} s")


def served_through(members: ReplicaSet, name: str, kills: int) -> Race:
    """Change grants and read with them through two servers while primaries are killed."""

    async def survived(race: Race) -> None:
        killing = True
        racing = asyncio.create_task(race.run(lambda _: killing))
        try:
            for _ in range(kills):
                judged = race.judged
                await asyncio.sleep(0.5 + random.random())
                primary = await _primary(members)
                primary.kill()
                await _primary(members)  # the new primary
                primary.start()
                await asyncio.to_thread(members.await_health)
                await until(lambda judged=judged: race.judged >= judged + 12, "requests are answered again")
        finally:
            killing = False
            await racing

    with started(members.url.replace("{name}", name), SURE) as pair:
        race = Race(pair)
        asyncio.run(survived(race))
    assert race.stale == [] and race.judged >= 12 * kills and race.longest < HANG
    return race
