"""The MongoDB store as the source or the target of a copy of the whole store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pymongo import ReplaceOne, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection

from fhir_server.errors import Problem
from fhir_server.store import IndexedRow, row_order
from fhir_server.store.copying import KeyValue, ResourceHistory, Version
from fhir_server.store.mongodb import MongoStore, changes
from fhir_server.store.mongodb import documents as docs
from fhir_server.store.mongodb.documents import Document
from fhir_server.store.mongodb.failures import retried
from fhir_server.store.mongodb.schema import CLASSES, COPY_STATE

_FIELDS: Final = docs.ROW | docs.ENTRIES | {"stored": 1}
_VERSIONS: Final = 4  # past versions read for each resource of a page


class _MongoCopySide:
    """A source and a target.  It writes without transactions: no server uses the store before :meth:`finish`, and writes repeat safely."""

    unlimited = docs.SMALL_BODY

    def __init__(self, store: MongoStore) -> None:
        self._store = store
        self._connection = store.connection

    @retried
    async def classes(self) -> tuple[str, ...]:
        counter = await self._connection.counters.find_one({"_id": CLASSES})
        return tuple(counter["keys"]) if counter else ()

    @retried
    async def histories(self, after: tuple[str, str], limit: int) -> tuple[ResourceHistory, ...]:
        current = await self._names(self._connection.resources, after, limit)
        past = await self._names(self._connection.history, after, limit * _VERSIONS)
        # A collection that returned as many as the limit may have more after its last name, so the page ends there.
        ends = [read[-1] for read, most in ((current, limit), (past, limit * _VERSIONS)) if len(read) == most]
        names = [name for name in sorted({*current, *past}) if all(name <= end for end in ends)][:limit]
        versions: dict[str, list[Version]] = {docs.document_id(*name): [] for name in names}
        for document in await self._connection.history.find(
            {"rid": {"$in": list(versions)}}, _FIELDS | {"rid": 1}, sort={"version": 1}
        ).to_list():
            versions[document["rid"]].append(_version(document))
        for document in await self._connection.resources.find({"_id": {"$in": list(versions)}}, _FIELDS).to_list():
            versions[document["_id"]].append(_version(document))
        return tuple([ResourceHistory(*name, tuple(versions[docs.document_id(*name)])) for name in names])

    async def _names(self, collection: AsyncCollection[Document], after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
        """Return (type, id) of documents, in that order, starting after ``after``."""
        later = {"$or": [{"type": {"$gt": after[0]}}, {"type": after[0], "id": {"$gt": after[1]}}]}
        found = collection.find(later, {"type": 1, "id": 1}, sort={"type": 1, "id": 1}, limit=limit)
        return [(document["type"], document["id"]) async for document in found]

    @retried
    async def large_resources(self, least: int) -> tuple[tuple[str, str], ...]:
        steps: list[Any] = [{"$match": {"$expr": {"$gte": [{"$binarySize": "$body"}, least]}}}, {"$project": {"type": 1, "id": 1}}]
        found: set[tuple[str, str]] = set()
        for collection in (self._connection.resources, self._connection.history):
            found |= {(document["type"], document["id"]) async for document in await collection.aggregate(steps)}
        return tuple(sorted(found))

    @retried
    async def history(self, type: str, id: str) -> ResourceHistory:
        name = docs.document_id(type, id)
        past = await self._connection.history.find({"rid": name}, _FIELDS, sort={"version": 1}).to_list()
        current = await self._connection.resources.find({"_id": name}, _FIELDS).to_list()
        return ResourceHistory(type, id, tuple(map(_version, (*past, *current))))

    def does_not_fit(self, history: ResourceHistory) -> tuple[int, ...]:
        numbers = []
        for version in history.versions:
            try:
                _document(history, version)
            except Problem:
                numbers.append(version.indexed.row.version)
        return tuple(numbers)

    @retried
    async def key_values(self, after: tuple[str, str], limit: int) -> tuple[KeyValue, ...]:
        later = {"$or": [{"kind": {"$gt": after[0]}}, {"kind": after[0], "key": {"$gt": after[1]}}]}
        records = self._connection.secrets.find(later, sort={"kind": 1, "key": 1}, limit=limit)
        return tuple(
            [KeyValue(record["kind"], record["key"], record["value"], int(record["expires"]), record["family"]) async for record in records]
        )

    @retried
    async def log_names(self) -> tuple[str, ...]:
        return tuple(sorted(await self._connection.journal.distinct("journal")))

    @retried
    async def log_lines(self, log: str, after: int, limit: int) -> tuple[tuple[int, bytes], ...]:
        return await self._store.read_log(log, after, limit)

    @retried
    async def count(self) -> int:
        steps: list[Any] = [{"$group": {"_id": "$rid"}}, {"$count": "n"}]
        current = await self._connection.resources.estimated_document_count()
        past = await (await self._connection.history.aggregate(steps, allowDiskUse=True)).to_list()
        return max(current, past[0]["n"] if past else 0)

    @retried
    async def begin(self, source: str) -> tuple[str, str]:
        state = await self._connection.counters.find_one({"_id": COPY_STATE})
        if state is not None and state["source"] == source:
            return state["after"][0], state["after"][1]
        collections = (self._connection.resources, self._connection.secrets)
        if state is not None or any([await collection.find_one({}, {"_id": 1}) for collection in collections]):
            raise ValueError(f"The database {self._connection.database.name} is not empty. Name an empty database as the target.")
        await self._save_progress({"source": source, "after": ["", ""]})
        return "", ""

    async def _save_progress(self, state: Document) -> None:
        await self._connection.counters.update_one({"_id": COPY_STATE}, {"$set": state}, upsert=True)

    @retried
    async def put_classes(self, keys: tuple[str, ...]) -> None:
        await self._connection.counters.replace_one({"_id": CLASSES}, {"keys": list(keys), "value": len(keys)}, upsert=True)

    @retried
    async def put_histories(self, histories: Sequence[ResourceHistory]) -> None:
        history: list[Any] = []
        resources: list[Any] = []
        purged: list[Any] = []
        after = ["", ""]
        for resource in histories:
            *past, last = [_document(resource, version) for version in resource.versions]
            if last["interaction"] == "delete":
                past.append(last)
            else:
                last["at"] = row_order.first_stored([(version.indexed.row, _stored(resource, version)) for version in resource.versions])
                resources.append(_replace(last))
            history += [_replace(docs.history_document(document)) for document in past]
            numbers = [version.indexed.row.version for version in resource.versions]
            purged += [_replace(document) for document in changes.purged_documents(resource.versions[-1].indexed.row, numbers)]
            after = [resource.type, resource.id]
        connection = self._connection
        for collection, writes in ((connection.history, history), (connection.resources, resources), (connection.purged, purged)):
            if writes:
                await collection.bulk_write(writes, ordered=False)
        await self._save_progress({"after": after})

    @retried
    async def put_key_values(self, records: Sequence[KeyValue]) -> None:
        for record in records:
            await self._store.key_values.put(record.kind, record.key, record.value, record.expires, record.family)

    @retried
    async def put_log_lines(self, log: str, lines: Sequence[tuple[int, bytes, tuple[str, ...]]]) -> None:
        name = f"journal/{log}"
        writes: list[Any] = []
        last = 0
        for last, line, keys in lines:
            document = {"_id": f"{name}/{last:012}", "journal": log, "n": last, "line": line}
            writes.append(_replace(document | ({"keys": sorted(set(keys))} if keys else {})))
        if writes:
            await self._connection.journal.bulk_write(writes, ordered=False)
            await self._connection.counters.bulk_write([UpdateOne({"_id": name}, {"$max": {"value": last}}, upsert=True)])

    @retried
    async def finish(self) -> None:
        await self._connection.counters.delete_one({"_id": COPY_STATE})


def _version(document: Document) -> Version:
    return Version(IndexedRow(docs.decode_row(document), docs.decode_entries(document)), int(document["stored"].partition(".")[0], 16))


def _replace(document: Document) -> ReplaceOne[Document]:
    return ReplaceOne({member: document[member] for member in ("_id", "rid") if member in document}, document, upsert=True)


def _stored(resource: ResourceHistory, version: Version) -> str:
    return f"{version.stored:014x}.{resource.id}"


def _document(resource: ResourceHistory, version: Version) -> Document:
    stored = _stored(resource, version)
    return docs.encode_document(version.indexed.row, version.indexed.entries, stored, stored)


def copy_source(store: MongoStore) -> _MongoCopySide:
    """Return the store as a source to copy from."""
    return _MongoCopySide(store)


def copy_target(store: MongoStore) -> _MongoCopySide:
    """Return the store as a target to copy into, which may hold an incomplete copy."""
    store.connection.is_copy_target = True
    return _MongoCopySide(store)
