"""What MongoDB examines for one person's grants, sessions and codes does not grow with other people's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.store.mongodb import MongoStore, schema
from tests.mongo.command_listener import Listener
from tests.mongo.shared_mongod import fresh_url
from tests.mongo.test_hidden_rows import _OF_SESSION
from tests.mongo.test_query_plans import members
from tests.store.own_records import ASKED, plant

_OTHERS = 2_000  # each is written in a transaction


def _examined(others: int) -> dict[str, int]:
    """Return how many keys and documents each question examines, with so many other people."""
    url, listener = fresh_url(), Listener()
    store = MongoStore(url, event_listeners=[listener])
    client: MongoClient[dict[str, Any]] = MongoClient(url)
    counted: dict[str, int] = {}
    with asyncio.Runner() as runner:
        runner.run(plant(store, others))
        for name, ask in ASKED.items():
            listener.commands.clear()
            assert runner.run(ask(store)), name
            counted[name] = 0
            for command in listener.of("find"):
                asked = {member: value for member, value in command.items() if member not in _OF_SESSION}
                plan = client.get_default_database().command("explain", asked, verbosity="executionStats")
                counted[name] += sum(members(plan, "totalKeysExamined")) + sum(members(plan, "totalDocsExamined"))
        runner.run(store.close())
    client.close()
    return counted


def test_other_peoples_records_are_not_examined() -> None:
    alone, among_others = _examined(0), _examined(_OTHERS)
    assert all(alone.values())
    assert {name: number for name, number in among_others.items() if number > alone[name]} == {}


def test_explained_keys_show_a_missing_index(monkeypatch: pytest.MonkeyPatch) -> None:
    without = [index for index in schema.INDEXES["secrets"] if index.document["name"] != "family"]
    monkeypatch.setitem(schema.INDEXES, "secrets", tuple(without))
    among_others = _examined(100)
    assert {name for name, number in among_others.items() if number > 100} == {"sessions", "recovery codes"}
