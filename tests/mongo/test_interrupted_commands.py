"""If an election interrupts any command of a request, the request succeeds or gets 503 with Retry-After.

No other error occurs, nothing is done twice, and everything acknowledged is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.errors import Problem
from fhir_server.search.filters import Has, TokenIs
from fhir_server.store import KeyValueRecord, LogEntry, Store, open_store
from fhir_server.store.mongodb import retry
from tests.mongo.failpoints import ELECTION, failing, failing_set, url_of
from tests.mongo.mongod import ReplicaSet
from tests.store.samples import ANYONE, OBS, put, record, token

FOREVER = 2**62
COMMANDS = ("find", "aggregate", "getMore", "insert", "update", "delete", "findAndModify", "commitTransaction", "abortTransaction")

Asked = Callable[[Store], Awaitable[Any]]


async def created(store: Store) -> None:
    await put(store, record("new", entries=[token("code", "x")]))


async def updated(store: Store) -> None:
    await put(store, record("there", version=2))


async def found(store: Store) -> None:
    async with store.snapshot() as snapshot:
        await snapshot.permission_epoch("p")
        assert [row.id for row in (await snapshot.find(OBS, Has("code", TokenIs("s", "old")), ANYONE, limit=9)).rows] == ["there"]


async def kept(store: Store) -> None:
    assert await store.key_values.put_if_absent("jti", "new", b"x", FOREVER)


async def replaced(store: Store) -> None:
    await store.key_values.put("code", "there", b"y", FOREVER)


async def peeked(store: Store) -> None:
    assert await store.key_values.get("code", "there", 0) == b"x"


async def taken(store: Store) -> None:
    assert await store.key_values.pop("code", "there", 0) == b"x"


async def exchanged(store: Store) -> None:
    new = [KeyValueRecord("code", "there", b"y", FOREVER, "family"), KeyValueRecord("jti", "new", b"y", FOREVER, "family")]
    assert await store.key_values.exchange("code", "member", 0, new)


async def extended(store: Store) -> None:
    assert await store.key_values.replace_value("code", "there", b"x", b"y", FOREVER)


async def listed(store: Store) -> None:
    assert await store.key_values.list_all("code", 5) == (("member", b"x"), ("there", b"x"))


async def forgotten(store: Store) -> None:
    await store.key_values.delete_family("family")


async def purged(store: Store) -> None:
    await store.key_values.purge(5)


async def noted(store: Store) -> None:
    await store.append_log("audit", [LogEntry(b"one"), LogEntry(b"two")])


async def told(store: Store) -> None:
    assert [line for _, line in await store.read_log("audit")] == [b"zero"]


ASKED: tuple[Asked, ...] = (
    created,
    updated,
    found,
    kept,
    replaced,
    peeked,
    taken,
    exchanged,
    extended,
    listed,
    forgotten,
    purged,
    noted,
    told,
)


async def state(store: Store) -> dict[str, Any]:
    """Return all data that the functions in ``ASKED`` may change."""
    async with store.snapshot() as snapshot:
        rows = {row.id: row.version for row in (await snapshot.find(OBS, Has("code", TokenIs("s", "x")), ANYONE, limit=9)).rows}
        there = await snapshot.read(OBS, "there", ANYONE)
        stamp = await snapshot.permission_epoch("p")
    names = [(kind, key, await store.key_values.get(kind, key, 0)) for kind, key in (("jti", "new"), ("code", "there"), ("code", "member"))]
    lines = [line for _, line in await store.read_log("audit")]
    return {"rows": rows, "there": there and there.version, "security": stamp.security, "secrets": names, "lines": lines}


MODES: dict[str, Any] = {
    "once": {"times": 1},
    "until the driver gives up": {"times": 2},
    "from the second on": {"skip": 1},
    "always": "alwaysOn",
}


@pytest.fixture(scope="module")
def members() -> Iterator[ReplicaSet]:
    replica_set = failing_set()
    yield replica_set
    replica_set.stop()


async def world(members: ReplicaSet) -> Store:
    """Return a store on the one test database, always with the same content."""
    url = url_of(members, "fhir")
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        for name in database.list_collection_names():
            database[name].delete_many({})
    store = open_store(url)
    await store.prepare()
    await put(store, record("there", entries=[token("code", "old")]))
    for key, expires, family in (("there", FOREVER, ""), ("member", FOREVER, "family"), ("ended", 3, "")):
        assert await store.key_values.put_if_absent("code", key, b"x", expires, family)
    await store.append_log("audit", [LogEntry(b"zero")])
    return store


async def undisturbed(members: ReplicaSet, asked: Asked) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the state before and after a call without failures."""
    store = await world(members)
    before = await state(store)
    await asked(store)
    after = await state(store)
    await store.close()
    return before, after


async def disturbed(members: ReplicaSet, asked: Asked, mode: Any, how: str) -> tuple[bool, dict[str, Any], int]:
    """Return whether the call was acknowledged, the state afterwards, and the number of failed commands."""
    store = await world(members)
    acknowledged = True
    with failing(members, mode, COMMANDS, how) as failure:
        try:
            await asked(store)
        except Problem as problem:
            assert (problem.status, acknowledged) == (503, True)
            acknowledged = False
    left = await state(store)
    await store.close()
    return acknowledged, left, failure.struck


def _is_slow(asked: Asked, how: str) -> bool:
    """Whether the driver repeats the commands for more than a minute."""
    return how == "hangs up" or (how == "refuses" and asked in (noted, exchanged))


CASES = [
    pytest.param(asked, how, marks=pytest.mark.slow if _is_slow(asked, how) else (), id=f"{asked.__name__}-{how}")
    for how in ELECTION
    for asked in ASKED
]


@pytest.mark.parametrize(("asked", "how"), CASES)
def test_election_during_any_command_applies_all_or_nothing(
    members: ReplicaSet, asked: Asked, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_RETRY_SECONDS", 1.0)

    async def job() -> None:
        before, after = await undisturbed(members, asked)
        refused = done = 0
        for name, mode in MODES.items():
            acknowledged, left, struck = await disturbed(members, asked, mode, how)
            assert left == after or (not acknowledged and left == before), (name, before, left, after)
            assert struck or mode == {"skip": 1}
            done, refused = done + acknowledged, refused + (not acknowledged)
        assert done and (refused or how == "cannot confirm"), (done, refused)

    asyncio.run(job())
