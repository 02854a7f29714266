"""Caches the resources that a MongoDB transaction has read or written, so that each is fetched once, many at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.mongodb.schema import Connection


def names_in_history(names: list[str]) -> list[dict[str, Any]]:
    """Return the pipeline on the history for those of these resources of which it has a version.

    However many versions there are, it reads one key of the index for each resource.
    """
    return [{"$match": {"rid": {"$in": names}}}, {"$sort": {"rid": 1, "version": 1}}, {"$group": {"_id": "$rid"}}]


class StoredResource(msgspec.Struct):
    """A resource: its current document, or that of its deletion, or neither if it never existed."""

    current: Any
    deletion: Any
    existed: bool  # had a current document before this transaction

    @property
    def version(self) -> int:
        """The newest version's number; 0 if there is none."""
        document = self.current or self.deletion
        return int(document["version"]) if document else 0


class RowCache:
    """Resources by ``Type/id``.  The transaction also records its own writes here with :meth:`set`."""

    def __init__(self, connection: Connection, session: AsyncClientSession) -> None:
        self._connection = connection
        self._session = session
        self._stored: dict[str, StoredResource] = {}

    async def prefetch(self, names: Iterable[str]) -> None:
        """Fetch those that are not in the cache yet."""
        new = [name for name in dict.fromkeys(names) if name not in self._stored]
        if not new:
            return
        found = await self._connection.raw_resources.find({"_id": {"$in": new}}, session=self._session).to_list()
        current: dict[str, Any] = {str(document["_id"]): document for document in found}
        absent = [name for name in new if name not in current]
        deletions = {name: await self._last_in_history(name) for name in await self._names_in_history(absent)}
        for name in new:
            self._stored[name] = StoredResource(current.get(name), deletions.get(name), name in current)

    async def _names_in_history(self, names: list[str]) -> set[str]:
        """Return those of which the history has a version."""
        if not names:
            return set()
        found = await self._connection.history.aggregate(names_in_history(names), session=self._session)
        return {str(group["_id"]) async for group in found}

    async def _last_in_history(self, name: str) -> Any:
        return await self._connection.raw_history.find_one({"rid": name}, sort={"version": -1}, session=self._session)

    async def get(self, name: str) -> StoredResource:
        """Return the resource, fetched if necessary."""
        if name not in self._stored:
            await self.prefetch((name,))
        return self._stored[name]

    async def current(self, names: Iterable[str]) -> list[Any]:
        """Return the current documents of those that have one."""
        unique = list(dict.fromkeys(names))
        await self.prefetch(unique)
        return [document for name in unique if (document := self._stored[name].current) is not None]

    def set(self, name: str, stored: StoredResource) -> None:
        """Record what the transaction wrote."""
        self._stored[name] = stored

    def forget(self, name: str) -> None:
        """Fetch it again when it is needed next."""
        del self._stored[name]
