"""The MongoDB store as a whole, to be copied from or into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pymongo import ReplaceOne, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection

from fhir_server.store import IndexedRow, row_order
from fhir_server.store.copying import KeyValue, ResourceHistory, Version
from fhir_server.store.mongodb import MongoStore
from fhir_server.store.mongodb import documents as docs
from fhir_server.store.mongodb.documents import Document
from fhir_server.store.mongodb.failures import persistent
from fhir_server.store.mongodb.schema import CLASSES, MOVING

_FIELDS: Final = docs.ROW | docs.ENTRIES | {"stored": 1}
_VERSIONS: Final = 4  # past versions looked through for each resource asked for


class _MongoCopySide:
    """Both sides.  What is copied is written without transactions, for nobody reads it before :meth:`finish`; twice does no harm."""

    def __init__(self, store: MongoStore) -> None:
        self._store = store
        self._base = store.base

    @persistent
    async def classes(self) -> tuple[str, ...]:
        found = await self._base.counters.find_one({"_id": CLASSES})
        return tuple(found["keys"]) if found else ()

    @persistent
    async def histories(self, after: tuple[str, str], limit: int) -> tuple[ResourceHistory, ...]:
        current = await self._names(self._base.resources, after, limit)
        past = await self._names(self._base.history, after, limit * _VERSIONS)
        # Of a collection that has more, nothing is known from there on.
        ends = [found[-1] for found, asked in ((current, limit), (past, limit * _VERSIONS)) if len(found) == asked]
        names = [name for name in sorted({*current, *past}) if all(name <= end for end in ends)][:limit]
        kept: dict[str, list[Version]] = {docs.name(*name): [] for name in names}
        for made in await self._base.history.find({"rid": {"$in": list(kept)}}, _FIELDS | {"rid": 1}, sort={"version": 1}).to_list():
            kept[made["rid"]].append(_version(made))
        for made in await self._base.resources.find({"_id": {"$in": list(kept)}}, _FIELDS).to_list():
            kept[made["_id"]].append(_version(made))
        return tuple([ResourceHistory(*name, tuple(kept[docs.name(*name)])) for name in names])

    async def _names(self, collection: AsyncCollection[Document], after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
        """(type, id) of documents, in that order, from behind ``after`` on."""
        behind = {"$or": [{"type": {"$gt": after[0]}}, {"type": after[0], "id": {"$gt": after[1]}}]}
        found = collection.find(behind, {"type": 1, "id": 1}, sort={"type": 1, "id": 1}, limit=limit)
        return [(one["type"], one["id"]) async for one in found]

    @persistent
    async def key_values(self, after: tuple[str, str], limit: int) -> tuple[KeyValue, ...]:
        behind = {"$or": [{"kind": {"$gt": after[0]}}, {"kind": after[0], "key": {"$gt": after[1]}}]}
        found = self._base.secrets.find(behind, sort={"kind": 1, "key": 1}, limit=limit)
        return tuple([KeyValue(one["kind"], one["key"], one["value"], int(one["expires"]), one["family"]) async for one in found])

    @persistent
    async def journals(self) -> tuple[str, ...]:
        return tuple(sorted(await self._base.journal.distinct("journal")))

    @persistent
    async def lines(self, journal: str, after: int, limit: int) -> tuple[tuple[int, bytes], ...]:
        return await self._store.journal(journal, after, limit)

    @persistent
    async def count(self) -> int:
        steps: list[Any] = [{"$group": {"_id": "$rid"}}, {"$count": "n"}]
        current = await self._base.resources.estimated_document_count()
        once = await (await self._base.history.aggregate(steps, allowDiskUse=True)).to_list()
        return max(current, once[0]["n"] if once else 0)

    @persistent
    async def begin(self, source: str) -> tuple[str, str]:
        known = await self._base.counters.find_one({"_id": MOVING})
        if known is not None and known["source"] == source:
            return known["after"][0], known["after"][1]
        if known is not None or await self._base.resources.find_one({}, {"_id": 1}) or await self._base.secrets.find_one({}, {"_id": 1}):
            raise ValueError(f"The database {self._base.database.name} holds something else already; name one that is empty.")
        await self._note({"source": source, "after": ["", ""]})
        return "", ""

    async def _note(self, noted: Document) -> None:
        await self._base.counters.update_one({"_id": MOVING}, {"$set": noted}, upsert=True)

    @persistent
    async def put_classes(self, keys: tuple[str, ...]) -> None:
        await self._base.counters.replace_one({"_id": CLASSES}, {"keys": list(keys), "value": len(keys)}, upsert=True)

    @persistent
    async def put_histories(self, lives: Sequence[ResourceHistory]) -> None:
        history: list[Any] = []
        resources: list[Any] = []
        after = ["", ""]
        for life in lives:
            *past, last = [_document(life, version) for version in life.versions]
            if last["interaction"] == "delete":
                past.append(last)
            else:
                last["at"] = row_order.first([(version.record.row, _stored(life, version)) for version in life.versions])
                resources.append(_placed(last))
            history += [_placed(docs.past(one)) for one in past]
            after = [life.type, life.id]
        for collection, writes in ((self._base.history, history), (self._base.resources, resources)):
            if writes:
                await collection.bulk_write(writes, ordered=False)
        await self._note({"after": after})

    @persistent
    async def put_key_values(self, secrets: Sequence[KeyValue]) -> None:
        for one in secrets:
            await self._store.key_values.put(one.kind, one.key, one.value, one.expires, one.family)

    @persistent
    async def put_lines(self, journal: str, lines: Sequence[tuple[int, bytes]]) -> None:
        name = f"journal/{journal}"
        writes: list[Any] = []
        last = 0
        for last, line in lines:
            writes.append(_placed({"_id": f"{name}/{last:012}", "journal": journal, "n": last, "line": line}))
        if writes:
            await self._base.journal.bulk_write(writes, ordered=False)
            await self._base.counters.bulk_write([UpdateOne({"_id": name}, {"$max": {"value": last}}, upsert=True)])

    @persistent
    async def finish(self) -> None:
        await self._base.counters.delete_one({"_id": MOVING})


def _version(made: Document) -> Version:
    return Version(IndexedRow(docs.row(made), docs.entries(made)), int(made["stored"].partition(".")[0], 16))


def _placed(made: Document) -> ReplaceOne[Document]:
    return ReplaceOne({member: made[member] for member in ("_id", "rid") if member in made}, made, upsert=True)


def _stored(life: ResourceHistory, version: Version) -> str:
    return f"{version.stored:014x}.{life.id}"


def _document(life: ResourceHistory, version: Version) -> Document:
    stored = _stored(life, version)
    return docs.document(version.record.row, version.record.entries, stored, stored)


def copy_source(store: MongoStore) -> _MongoCopySide:
    return _MongoCopySide(store)


def copy_target(store: MongoStore) -> _MongoCopySide:
    store.base.moving = True
    return _MongoCopySide(store)
