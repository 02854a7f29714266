"""The number of database commands that a request costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.store.mongodb import MongoStore, schema
from tests.mongo.command_listener import Listener
from tests.mongo.shared_mongod import fresh_url
from tests.served import Served
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
        served = Served(fresh_url())
        yield served
        served.close()


def commands(served: Served, listener: Listener, token: str, method: str, path: str, body: Any = None) -> list[str]:
    """Return the commands that a request sends when permissions are cached and the primary is confirmed."""
    for _ in range(2):
        listener.commands.clear()
        assert served.request(token, method, path, body=body).status in (200, 201)
    asked = list(listener.commands)
    auditing = {_transaction(command) for command in asked if command.get("insert") == "journal"}  # the audit log is written in parallel
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
