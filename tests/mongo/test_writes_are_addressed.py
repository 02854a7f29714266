"""On a sharded cluster a write must name its document: every write's filter carries ``_id``; and all go to a majority."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fhir_server.store.mongodb import MongoStore
from tests.mongo.listening import Listener
from tests.mongo.servers import fresh_url
from tests.served import Served
from tests.store.samples import date, drop, put, record, row, token

Command = dict[str, Any]
_WRITES = ("insert", "update", "delete", "findAndModify")


def filters(command: Command) -> list[Command]:
    """The filters of a writing command."""
    if "findAndModify" in command:
        return [command["query"]]
    return [statement["q"] for statement in command.get("updates", command.get("deletes", ()))]


def broad(commands: list[Command]) -> list[Command]:
    """Writes that do not name their document."""
    return [command for command in commands for filter in filters(command) if not isinstance(filter.get("_id"), str)]


def weak(commands: list[Command]) -> list[Command]:
    """Writes that could be acknowledged by less than a majority, beside those that a commit acknowledges."""
    asked = [
        command
        for command in commands
        if "txnNumber" not in command or command.get("autocommit") is not False or "commitTransaction" in command
    ]
    return [command for command in asked if command.get("writeConcern", {}).get("w") != "majority"]


async def everything(store: MongoStore) -> None:
    """Every writing method of the port."""
    await put(store, record("a", "p1", entries=[token("code", "x"), date("d", 1)]), record("b", "p1"))
    await put(store, record("a", "p1", version=2))
    await drop(store, "b")

    async def job(transaction: Any) -> None:
        await transaction.relabel(record("a", "p2", version=2, vclass=1))
        await transaction.intern("lab||")
        await transaction.bump("p1")
        await transaction.bump(None)
        await transaction.referrers("Encounter/e")
        await transaction.current("Encounter", "none")
        await transaction.stamp("p1")

    await store.write(job)
    secrets = store.secrets
    await secrets.keep("kind", "a", b"x", 2**62, "family")
    await secrets.keep("kind", "a", b"x", 2**62, "family")
    await secrets.replace("kind", "b", b"x", 5, "family")
    await secrets.take("kind", "a", 0)
    await secrets.forget("family")
    await secrets.replace("kind", "b", b"x", 5)
    await secrets.purge(6)
    await store.append("audit", [b"1", b"2"])
    assert row("a").id == "a"


def test_every_write_names_its_document_and_goes_to_a_majority() -> None:
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


def test_the_server_itself_does_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listener = Listener()
    right = MongoStore.__init__
    monkeypatch.setattr(MongoStore, "__init__", lambda self, url: right(self, url, event_listeners=[listener]))
    served = Served(fresh_url())
    served.close()
    writes = listener.of(*_WRITES)
    assert len(writes) > 100
    assert broad(writes) == []
    assert weak([*writes, *listener.of("commitTransaction")]) == []


def test_the_judges_notice() -> None:
    assert broad([{"delete": "secrets", "deletes": [{"q": {"family": "x"}}]}])
    assert broad([{"findAndModify": "x", "query": {"_id": {"$in": []}}}])
    assert weak([{"insert": "x", "documents": []}])
    assert not weak([{"insert": "x", "writeConcern": {"w": "majority"}}])
