"""On a sharded cluster every write targets one document: its filter has ``_id`` and the shard key of ``docs/operations.md``.

All writes use the write concern ``majority``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fhir_server.maintenance.copy_store import copy_store
from fhir_server.store import KeyValueRecord, LogEntry, open_store
from fhir_server.store.logs import unlinked
from fhir_server.store.mongodb import MongoStore
from tests.mongo.command_listener import Listener
from tests.mongo.shared_mongod import fresh_url
from tests.served import Served
from tests.store.samples import date, drop, put, record, row, token

Command = dict[str, Any]
_WRITES = ("insert", "update", "delete", "findAndModify")
_SHARD_KEYS = {"history": "rid"}  # all other collections: ``_id``


def filters(command: Command) -> list[Command]:
    """Return the filters of a write command."""
    if "findAndModify" in command:
        return [command["query"]]
    return [statement["q"] for statement in command.get("updates", command.get("deletes", ()))]


def broad(commands: list[Command]) -> list[Command]:
    """Return the writes whose filter lacks ``_id`` or the shard key."""
    return [command for command in commands for filter in filters(command) if not _addressed(next(iter(command.values())), filter)]


def _addressed(collection: str, filter: Command) -> bool:
    return all(isinstance(filter.get(member), str) for member in {"_id", _SHARD_KEYS.get(collection, "_id")})


def weak(commands: list[Command]) -> list[Command]:
    """Return the writes without write concern ``majority``.  Inside a transaction, only the commit needs it."""
    asked = [
        command
        for command in commands
        if "txnNumber" not in command or command.get("autocommit") is not False or "commitTransaction" in command
    ]
    return [command for command in asked if command.get("writeConcern", {}).get("w") != "majority"]


async def everything(store: MongoStore) -> None:
    """Call every write method of the store."""
    await put(store, record("a", "p1", entries=[token("code", "x"), date("d", 1)]), record("b", "p1"))
    await put(store, record("a", "p1", version=2))
    await drop(store, "b")

    async def job(transaction: Any) -> Any:
        await transaction.relabel(record("a", "p2", version=1, class_id=1))
        await transaction.relabel(record("a", "p2", version=2, class_id=1))
        await transaction.intern_class("lab||")
        await transaction.advance_epoch("p1")
        await transaction.advance_epoch(None)
        await transaction.referrers_unfiltered("Encounter/e")
        await transaction.read_unfiltered("Encounter", "none")
        await transaction.permission_epoch("p1")
        return transaction.log_at_commit("audit", LogEntry(b"0"), unlinked, lambda: ("0a", b"x"))

    pending = await store.write(job)
    assert pending is not None and pending.pending
    secrets = store.key_values
    await secrets.put_if_absent("kind", "a", b"x", 2**62, "family")
    await secrets.put_if_absent("kind", "a", b"x", 2**62, "family")
    await secrets.put("kind", "b", b"x", 5, "family")
    await secrets.exchange("kind", "b", 0, [KeyValueRecord("kind", "c", b"x", 5, "family")])
    await secrets.pop("kind", "a", 0)
    await secrets.delete_family("family")
    await secrets.put("kind", "b", b"x", 5)
    await secrets.purge(6)
    await store.append_log("audit", [LogEntry(b"1"), pending, LogEntry(b"2")])
    await store.discard_pending("audit", [pending.pending])
    assert row("a").id == "a"


def test_store_writes_use_id_shard_key_and_majority() -> None:
    listener = Listener()

    async def job() -> None:
        store = MongoStore(fresh_url(), event_listeners=[listener])
        await everything(store)
        await store.close()

    asyncio.run(job())
    writes = listener.of(*_WRITES)
    assert {next(iter(command.values())) for command in writes} == {"resources", "history", "counters", "locks", "secrets", "journal"}
    assert len(writes) > 20
    assert broad(writes) == []
    assert weak([*writes, *listener.of("commitTransaction")]) == []


def test_server_writes_use_id_shard_key_and_majority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listener = Listener()
    right = MongoStore.__init__
    monkeypatch.setattr(MongoStore, "__init__", lambda self, url, **options: right(self, url, **options, event_listeners=[listener]))
    served = Served(fresh_url())
    served.close()
    writes = listener.of(*_WRITES)
    assert len(writes) > 100
    assert broad(writes) == []
    assert weak([*writes, *listener.of("commitTransaction")]) == []


def test_copy_writes_use_id_shard_key_and_majority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source, listener = f"sqlite:///{tmp_path / 'fhir.sqlite'}", Listener()

    async def fill() -> None:
        store = open_store(source)
        await store.prepare()
        await put(store, record("a", "p1"), record("b", "p1"))
        await put(store, record("a", "p1", version=2))
        await drop(store, "b")
        await store.key_values.put_if_absent("kind", "a", b"x", 2**62)
        await store.append_log("audit", [LogEntry(b"1")])
        await store.close()

    asyncio.run(fill())
    right = MongoStore.__init__
    monkeypatch.setattr(MongoStore, "__init__", lambda self, url, **options: right(self, url, **options, event_listeners=[listener]))
    asyncio.run(copy_store(source, fresh_url(), lambda what, done, of: None))
    writes = listener.of(*_WRITES)
    assert {"resources", "history", "secrets", "journal", "counters"} <= {next(iter(command.values())) for command in writes}
    assert broad(writes) == []
    assert weak(writes) == []


def test_write_checks_detect_broad_and_weak_writes() -> None:
    assert broad([{"update": "history", "updates": [{"q": {"_id": "Observation/a/1"}}]}])
    assert not broad([{"update": "history", "updates": [{"q": {"_id": "Observation/a/1", "rid": "Observation/a"}}]}])
    assert broad([{"delete": "secrets", "deletes": [{"q": {"family": "x"}}]}])
    assert broad([{"findAndModify": "x", "query": {"_id": {"$in": []}}}])
    assert weak([{"insert": "x", "documents": []}])
    assert not weak([{"insert": "x", "writeConcern": {"w": "majority"}}])
