"""A server may be started while the members elect a primary: whatever is cut off is done again, and it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.store import mongodb_base, open_store
from tests.mongo.mongod import ReplicaSet
from tests.store.samples import put, record

STEPS = ("buildInfo", "listCollections", "create", "createIndexes", "update", "find", "commitTransaction")
INTERRUPTED = 11602  # InterruptedDueToReplStateChange: what a member says that is no longer the primary
ELECTION: dict[str, dict[str, Any]] = {
    "answers": {"errorCode": INTERRUPTED},
    "cannot confirm": {"writeConcernError": {"code": INTERRUPTED, "errmsg": "operation was interrupted"}},
    "hangs up": {"closeConnection": True},
}


@pytest.fixture(scope="module")
def members() -> Iterator[ReplicaSet]:
    replica_set = ReplicaSet(1, "--setParameter", "enableTestCommands=1")
    yield replica_set
    replica_set.stop()


def failing(members: ReplicaSet, mode: Any, step: str, how: dict[str, Any]) -> None:
    with members.members[0].client() as client:
        client.admin.command("configureFailPoint", "failCommand", mode=mode, data={"failCommands": [step], **how})


def failed(members: ReplicaSet) -> int:
    """How often the planted failure has struck, now that it is taken out."""
    with members.members[0].client() as client:
        return int(client.admin.command("configureFailPoint", "failCommand", mode="off")["count"])


def prepared(members: ReplicaSet, name: str) -> None:
    async def job() -> None:
        store = open_store(members.url.replace("{name}", name) + "&heartbeatFrequencyMS=500")
        try:
            await store.prepare()
            await put(store, record("a"))
        finally:
            await store.close()

    asyncio.run(job())


@pytest.mark.parametrize("how", ELECTION)
@pytest.mark.parametrize("step", STEPS)
def test_a_start_goes_on_after_an_election(members: ReplicaSet, step: str, how: str) -> None:
    failing(members, {"times": 3}, step, ELECTION[how])
    name = f"{step}-{how.replace(' ', '')}"
    try:
        prepared(members, name)
    finally:
        struck = failed(members)
    assert struck >= 3
    with MongoClient[dict[str, Any]](members.url.replace("{name}", name)) as client:
        assert client.get_default_database()["resources"].count_documents({"id": "a"}) == 1


def test_a_start_without_a_lasting_primary_ends_with_the_reason(members: ReplicaSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongodb_base, "_PATIENCE", 0.5)
    failing(members, "alwaysOn", "createIndexes", ELECTION["cannot confirm"])
    try:
        with pytest.raises(OSError, match=r"cannot be reached.*operation was interrupted"):
            prepared(members, "never")
    finally:
        failed(members)
