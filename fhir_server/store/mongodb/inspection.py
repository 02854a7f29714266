"""Looks at a MongoDB database without creating or changing anything."""

from __future__ import annotations

from typing import Any, Final

from pymongo.errors import OperationFailure, PyMongoError

from fhir_server.store.inspection import Identity
from fhir_server.store.mongodb import MongoStore, connect
from fhir_server.store.mongodb.failures import operator_error, retried
from fhir_server.store.mongodb.schema import COPY_STATE, INDEXES, SCHEMA, SCHEMA_NUMBER

_MAY_NOT: Final = frozenset({13, 59, 115, 8000})  # codes of a server that does not let this user validate a collection
_TTL_INDEX: Final = "gone"


class MongoInspector:
    """See :class:`fhir_server.store.inspection.Inspector`."""

    def __init__(self, url: str) -> None:
        self._store = connect(url, is_read_only=True)
        self._connection = self._store.connection

    async def identify(self) -> Identity:
        try:
            return await self._identify()
        except PyMongoError as error:
            raise operator_error(error, self._connection.database.name) from None

    @retried
    async def _identify(self) -> Identity:
        await self._connection.check_server()
        names = set(await self._connection.database.list_collection_names())
        if not names:
            return Identity("missing", 0, SCHEMA)
        counters = {
            counter["_id"]: counter async for counter in self._connection.counters.find({"_id": {"$in": [SCHEMA_NUMBER, COPY_STATE]}})
        }
        schema = int(counters.get(SCHEMA_NUMBER, {}).get("value", 0))
        if COPY_STATE in counters:
            return Identity("incomplete", schema, SCHEMA)
        if not schema:
            return Identity("foreign" if names - INDEXES.keys() else "empty", 0, SCHEMA)
        return Identity("present", schema, SCHEMA)

    @retried
    async def find_damage(self, *, thorough: bool) -> tuple[str, ...]:
        found = [await self._find_missing(name) for name in INDEXES]
        damaged = [sentence for sentence in found if sentence]
        if not damaged and thorough:
            damaged = [sentence for name in INDEXES for sentence in await self._validate(name)]
        return tuple(damaged)

    async def _find_missing(self, name: str) -> str:
        if name not in await self._connection.database.list_collection_names():
            return f"The collection {name} is missing."
        indexes = await self._connection.database[name].index_information()
        missing = sorted({str(index.document["name"]) for index in INDEXES[name]} - indexes.keys())
        return f"The collection {name} lacks the indexes {', '.join(missing)}." if missing else ""

    async def _validate(self, name: str) -> list[str]:
        """Let MongoDB validate a collection in the background, or compare its indexes if this user may not validate."""
        try:
            report = await self._connection.database.command("validate", name, background=True)
        except OperationFailure as error:
            if error.code not in _MAY_NOT:
                raise
            return await self._compare_indexes(name)
        shards = report.get("raw", {"": report}).values()
        return [] if all(shard.get("valid") for shard in shards) else [f"MongoDB finds the collection {name} damaged."]

    async def _compare_indexes(self, name: str) -> list[str]:
        """Count the documents by each index that has all of them: an index and its collection must agree."""
        collection = self._connection.database[name]
        information = await collection.index_information()
        partial = ("sparse", "partialFilterExpression", "expireAfterSeconds")
        whole = [index for index, options in information.items() if not any(option in options for option in partial)]
        async with self._connection.client.start_session(snapshot=True) as session:
            counts = {index: await collection.count_documents({}, hint=index, session=session) for index in whole}
        return [] if len(set(counts.values())) < 2 else [f"The indexes of the collection {name} count different numbers of documents."]

    @retried
    async def count_resources(self) -> int:
        return await self._connection.resources.count_documents({})

    @retried
    async def newest(self) -> int:
        step: list[dict[str, Any]] = [{"$group": {"_id": None, "newest": {"$max": "$updated"}}}]
        collections = (self._connection.resources, self._connection.history)
        groups = [group for collection in collections for group in await (await collection.aggregate(step)).to_list()]
        return max([int(group["newest"] or 0) for group in groups], default=0)

    def store(self) -> MongoStore:
        return self._store

    def is_outdated(self) -> bool:
        return False  # every read goes to the server

    async def close(self) -> None:
        await self._store.close()


def inspector(url: str) -> MongoInspector:
    """Return an inspector of the database that the URL names.  Raises ValueError for an invalid URL."""
    return MongoInspector(url)
