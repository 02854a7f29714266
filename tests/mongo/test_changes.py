"""A page of the history of a type is read from indexes alone, and costs the same however much there is and whatever is hidden."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.search.visibility import Visibility
from fhir_server.store.changes import ChangeRange
from fhir_server.store.mongodb import MongoStore
from tests.mongo.command_listener import Listener
from tests.mongo.shared_mongod import fresh_url
from tests.mongo.test_hidden_rows import _OF_SESSION
from tests.mongo.test_query_plans import members
from tests.store.samples import OBS, clause, put, record, visibility

_LIMIT = 10


def _examined(shown: int, hidden: int, seen: Visibility, *, ascending: bool) -> tuple[int, int]:
    """The keys and documents that the second page examines, besides those of its own versions."""
    url, listener = fresh_url(), Listener()
    store = MongoStore(url, event_listeners=[listener])
    client: MongoClient[dict[str, Any]] = MongoClient(url)

    async def ask() -> None:
        await put(store, *[record(f"v{number}", f"p{number % 3}", class_id=number % 2) for number in range(shown)])
        await put(store, *[record(f"h{number}", f"p{number % 3}", class_id=2 + number % 2) for number in range(hidden)])
        async with store.snapshot() as snapshot:
            first = await snapshot.changes_unfiltered({OBS: seen}, _LIMIT, ChangeRange(ascending=ascending))
            listener.commands.clear()
            rest = ChangeRange(ascending=ascending, after=first[-1].key)
            assert len(await snapshot.changes_unfiltered({OBS: seen}, _LIMIT, rest)) == _LIMIT
        await store.close()

    asyncio.run(ask())
    keys = documents = 0
    for command in listener.of("aggregate"):
        asked = {member: value for member, value in command.items() if member not in _OF_SESSION}
        plan = client.get_default_database().command("explain", asked, verbosity="executionStats")
        keys += sum(members(plan, "totalKeysExamined"))
        documents += sum(members(plan, "totalDocsExamined"))
    client.close()
    return keys, documents


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("seen", [visibility(clause("p1")), visibility(clause())], ids=["one patient", "all patients"])
def test_page_of_versions_is_read_from_indexes(seen: Visibility, ascending: bool) -> None:
    few, many = _examined(60, 0, seen, ascending=ascending), _examined(600, 600, seen, ascending=ascending)
    for keys, documents in (few, many):
        assert keys <= 4 * _LIMIT and documents <= 2
