"""A database of an earlier schema is converted when the server starts: versions are counted as before.  A later one is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from pymongo import MongoClient

from fhir_server.search.filters import EVERYTHING
from fhir_server.search.rows import SortKey
from fhir_server.store import Store
from fhir_server.store.mongodb import MongoStore, schema, upgrades
from fhir_server.store.mongodb.newest import NewestQuery
from fhir_server.store.version_history import VersionDigest, decode_history
from tests.mongo.shared_mongod import fresh_url
from tests.store.former_schemas import former_digests
from tests.store.histories import fill_former_histories, histories
from tests.store.samples import OBS, clause, date, put, record, visibility


def _run(url: str, *scenarios: Any) -> list[Any]:
    async def run() -> list[Any]:
        store: Store = MongoStore(url)
        try:
            return [await scenario(store) for scenario in scenarios]
        finally:
            await store.close()

    return asyncio.run(run())


def _turn_into_first_schema(url: str) -> int:
    """Give each version the digests of all versions before it.  Returns how many documents changed."""
    changed = 0
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        found = [("history", document) for document in database["history"].find({})]
        found += [("resources", document) for document in database["resources"].find({})]
        digests: dict[str, list[VersionDigest]] = {}
        for collection, document in sorted(found, key=lambda one: one[1]["version"]):
            encoded = document.get("history")
            own = digests.setdefault(document.get("rid", document["_id"]), [])
            if encoded is not None:
                known = decode_history(encoded)
                if document["version"] == 2 and not own and known.earlier is not None:
                    own.append(known.earlier.latest[0][1].digest)  # a first version had none of its own
                own.append(known.digest)
                more = msgspec.msgpack.encode([*msgspec.msgpack.decode(document.get("more", b"\x92\x90\x90")), former_digests(own)])
                database[collection].update_one({"_id": document["_id"]}, {"$set": {"more": more}, "$unset": {"history": 1}})
                changed += 1
        database["counters"].update_one({"_id": "schema"}, {"$set": {"value": 1}})
    return changed


def _filled() -> tuple[str, list[Any]]:
    """The URL of a database of schema 1 and what is counted of it."""
    url = fresh_url()
    before = _run(url, fill_former_histories, histories)[1]
    assert _turn_into_first_schema(url) > 30
    return url, before


def test_versions_are_counted_after_an_upgrade_as_before() -> None:
    url, before = _filled()
    assert _run(url, histories) == [before]
    with MongoClient[dict[str, Any]](url) as client:
        assert client.get_default_database()["counters"].find_one({"_id": "schema"}) == {"_id": "schema", "value": schema.SCHEMA}


def test_interrupted_upgrade_is_completed_at_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    url, before = _filled()
    exact, done = upgrades._summarize, 0

    async def interrupted(*what: Any) -> None:
        nonlocal done
        done += 1
        if done == 5:
            raise ValueError("stopped")
        await exact(*what)

    monkeypatch.setattr(upgrades, "_summarize", interrupted)
    with pytest.raises(ValueError, match="stopped"):
        _run(url, histories)
    monkeypatch.undo()
    assert _run(url, histories) == [before]


def test_two_servers_may_upgrade_one_database_at_once() -> None:
    url, before = _filled()

    async def both() -> list[Any]:
        stores = [MongoStore(url), MongoStore(url)]
        await asyncio.gather(*(store.prepare() for store in stores))
        found = [await histories(store) for store in stores]
        for store in stores:
            await store.close()
        return found

    assert asyncio.run(both()) == [before, before]


async def _newest(store: Store) -> list[str]:
    async with store.snapshot() as snapshot:
        page = await snapshot.find(OBS, EVERYTHING, visibility(clause("p1")), sort=(SortKey("when", "date", True),), limit=10)
    return [row.id for row in page.rows]


def test_newest_rows_of_a_third_schema_are_found_by_the_index_that_came_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fill(store: Store) -> None:
        await put(store, *(record(f"r{n}", "p1", entries=(date("when", n * 7 % 40),)) for n in range(40)), record("nobody's"))

    url, pages = fresh_url(), list[bool]()
    before = _run(url, fill, _newest)[1]
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        names = {document["_id"]: document.get("record") for document in database["resources"].find({}, {"record": 1})}
        database["resources"].drop_index("newest_of_patient")
        database["resources"].update_many({}, {"$unset": {"record": 1}})
        database["counters"].update_one({"_id": "schema"}, {"$set": {"value": 3}})
    right = NewestQuery.documents

    async def counted(self: NewestQuery, *how: Any) -> Any:
        documents = await right(self, *how)
        pages.append(documents is not None)
        return documents

    monkeypatch.setattr(NewestQuery, "documents", counted)
    assert _run(url, _newest) == [before]
    assert pages == [True]
    with MongoClient[dict[str, Any]](url) as client:
        found = client.get_default_database()["resources"].find({}, {"record": 1})
        assert {document["_id"]: document.get("record") for document in found} == names


def test_there_is_a_step_for_every_schema() -> None:
    assert sorted(upgrades.STEPS) == list(range(2, schema.SCHEMA + 1))


def test_database_of_a_later_schema_is_refused_with_one_sentence() -> None:
    url = fresh_url()
    _run(url, fill_former_histories)
    with MongoClient[dict[str, Any]](url) as client:
        client.get_default_database()["counters"].update_one({"_id": "schema"}, {"$inc": {"value": 1}})
    with pytest.raises(ValueError, match=r"written by a later version of this program \(schema \d+, known: \d+\)\.$"):
        _run(url, histories)
