"""MongoDB fetches no document of a hidden row: as many with 2,000 hidden rows as with none, for every shape of search."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.store.mongodb import MongoStore, schema
from tests.mongo.command_listener import Listener
from tests.mongo.shared_mongod import fresh_url
from tests.mongo.test_query_plans import members
from tests.store.hidden_rows import HIDDEN, SHAPES, SHOWN, batches
from tests.store.samples import put

# parts of commands that explain does not take
_OF_SESSION = {"lsid", "$db", "$clusterTime", "readConcern", "$readPreference", "maxTimeMS", "txnNumber", "startTransaction", "autocommit"}
# The index of strings is for searches over all patients, and a fetched document may be one of them.
_BY_STRING = {"string"}
_ANSWERED_BY_INDEX = ("first page", "second page", "patient", "subject", "any code of a system", "several patients")


def _examined(hidden: int) -> dict[str, tuple[int, int, object]]:
    """Return for each shape how many keys and documents it examines, and the answer, in a store with so many hidden rows."""
    url, listener = fresh_url(), Listener()
    store = MongoStore(url, event_listeners=[listener])
    client: MongoClient[dict[str, Any]] = MongoClient(url)

    async def ask(name: str) -> object:
        async with store.snapshot() as snapshot:
            return await SHAPES[name](snapshot)

    async def fill() -> None:
        for batch in batches(hidden):
            await put(store, *batch)

    with asyncio.Runner() as runner:
        runner.run(fill())
        counted: dict[str, tuple[int, int, object]] = {}
        for name in SHAPES:
            runner.run(ask(name))
            listener.commands.clear()
            answer = runner.run(ask(name))
            keys = documents = 0
            for command in listener.of("find", "aggregate"):
                if next(iter(command.values())) in ("resources", "history"):
                    asked = {member: value for member, value in command.items() if member not in _OF_SESSION}
                    plan = client.get_default_database().command("explain", asked, verbosity="executionStats")
                    keys += sum(members(plan, "totalKeysExamined"))
                    documents += sum(members(plan, "totalDocsExamined"))
            counted[name] = keys, documents, answer
        runner.run(store.close())
    client.close()
    return counted


def test_documents_of_hidden_rows_are_not_fetched() -> None:
    none, many = _examined(0), _examined(HIDDEN)
    assert {name: answer for name, (_, _, answer) in many.items()} == {name: answer for name, (_, _, answer) in none.items()}
    added = {name: many[name][1] - documents for name, (_, documents, _) in none.items() if name not in _BY_STRING}
    assert {name: number for name, number in added.items() if number > SHOWN} == {}
    assert {name: many[name][0] for name in _ANSWERED_BY_INDEX if many[name][0] > none[name][0] + 20} == {}


def test_explained_documents_show_index_without_class(monkeypatch: pytest.MonkeyPatch) -> None:
    without = [index for index in schema.INDEXES["resources"] if "class" not in index.document["key"] or index.document["name"] == "place"]
    monkeypatch.setitem(schema.INDEXES, "resources", (*without, schema._index("token", "tok.v", "tok.p", "type", "n", "at")))
    monkeypatch.setattr(schema, "_FORMER_INDEXES", ())
    many = _examined(HIDDEN)
    assert many["code"][1] > 4 * SHOWN
