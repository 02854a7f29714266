"""The number of database commands that a request costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.store.mongodb import MongoStore, schema
from tests.mongo.command_listener import Listener
from tests.mongo.shared_mongod import fresh_url
from tests.seeded import seeded
from tests.served import Served, call
from tests.waiting import HANG

ROW = {
    "resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"},
    "encounter": {"reference": "Encounter/adult-annual-visit"},
}  # fmt: skip


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def served(listener: Listener) -> Iterator[Served]:
    right = MongoStore.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "_CONFIRMED_SECONDS", HANG)  # avoids the periodic check of the primary, which is not counted here
        patch.setattr(MongoStore, "__init__", lambda store, url, **options: right(store, url, **options, event_listeners=[listener]))
        served = seeded(fresh_url())
        yield served
        served.close()


def commands(served: Served, listener: Listener, token: str, method: str, path: str, body: Any = None) -> list[str]:
    """Return the commands that a request sends when permissions are cached and the primary is confirmed."""
    for _ in range(2):
        listener.commands.clear()
        assert served.request(token, method, path, body=body).status in (200, 201)
        served.run(served.parts.auditor.flush())
    asked = list(listener.commands)
    auditing = {_transaction(command) for command in asked if command.get("insert") == "journal"}  # the audit log is written apart
    return [next(iter(command)) for command in asked if _transaction(command) not in auditing]


def _transaction(command: dict[str, Any]) -> tuple[Any, Any]:
    return command["lsid"]["id"], command.get("txnNumber")


def bundle(size: int) -> dict[str, Any]:
    entry = {"resource": ROW, "request": {"method": "POST", "url": "Observation"}}
    return {"resourceType": "Bundle", "type": "transaction", "entry": [entry] * size}


def test_transaction_command_count_does_not_grow_with_entries(served: Served, listener: Listener) -> None:
    feed = served.token()
    few, many = (commands(served, listener, feed, "POST", "", bundle(size)) for size in (2, 40))
    assert few == many and "commitTransaction" in few and len(few) <= 9, (few, many)


def test_read_takes_two_commands_and_create_seven(served: Served, listener: Listener) -> None:
    feed, own = served.token(), served.app_token("adult", "adult")
    assert commands(served, listener, own, "GET", "Observation/adult-hemoglobin") == ["aggregate", "find"]
    created = commands(served, listener, feed, "POST", "Observation", ROW)
    assert created == ["find"] * 3 + ["aggregate", "insert", "update", "commitTransaction"]


def test_line_of_a_write_costs_the_write_no_command_of_its_own(served: Served, listener: Listener) -> None:
    feed = served.token()
    created = commands(served, listener, feed, "POST", "Observation", ROW)
    appended = [command for command in listener.commands if _transaction(command) in _appends(listener)]
    assert [next(iter(command)) for command in appended] == ["findAndModify", "delete", "find", "insert", "update", "commitTransaction"]
    assert created.count("update") == 1 and "pending" in _written_ids(listener, "update", "locks")[-1]


def test_no_document_is_written_by_every_write(served: Served, listener: Listener) -> None:
    """Otherwise all writers would wait for each other.  The head of the chain is such a document: only appends write it."""
    feed = served.token()
    headers = {"authorization": f"Bearer {feed}", "content-type": "application/fhir+json"}

    async def create(number: int) -> None:
        body = json.dumps({"resourceType": "Basic", "code": {"text": "x"}, "id": f"w{number}"}).encode()
        answer = await call(served.api, "PUT", f"/Basic/w{number}", b"", headers, body)
        assert answer.status == 201

    async def all_at_once() -> None:
        await asyncio.gather(*(create(number) for number in range(8)))
        await served.parts.auditor.flush()

    listener.commands.clear()
    served.run(all_at_once())
    writing = {_transaction(command) for command in listener.commands if command.get("insert") == "resources"}
    written: dict[Any, set[str]] = {}
    for command in listener.commands:
        if _transaction(command) in writing:
            for statement in command.get("updates", ()):
                written.setdefault(_transaction(command), set()).add(statement["q"]["_id"])
    assert len(written) >= 8 and frozenset.intersection(*map(frozenset, written.values())) == frozenset()
    pending = [id for ids in written.values() for id in ids if id.startswith("pending/")]
    assert len(pending) == len(set(pending)) >= 8
    appending = _appends(listener)
    assert not writing & appending and appending  # and these write the head, which the check would find
    assert all("counters" in _collections(listener, transaction) for transaction in appending)


def _appends(listener: Listener) -> set[Any]:
    return {_transaction(command) for command in listener.commands if command.get("insert") == "journal"}


def _collections(listener: Listener, transaction: Any) -> set[str]:
    return {str(next(iter(command.values()))) for command in listener.commands if _transaction(command) == transaction}


def _written_ids(listener: Listener, name: str, collection: str) -> list[str]:
    found = [command for command in listener.commands if command.get(name) == collection]
    return [statement["q"]["_id"] for command in found for statement in command["updates"]]
