"""What a MongoDB transaction has fetched or written of single resources: each is asked for once, many at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.mongodb.schema import Base


class Stored(msgspec.Struct):
    """What stands under one name: the current document if there is one, else that of the deletion, if it was ever there."""

    current: Any
    deletion: Any
    existed: bool  # before this transaction

    @property
    def version(self) -> int:
        made = self.current or self.deletion
        return int(made["version"]) if made else 0


class KnownRows:
    """By ``Type/id``.  What the transaction itself writes is noted here by it, so that this is always as it stands in it."""

    def __init__(self, base: Base, session: AsyncClientSession) -> None:
        self._base = base
        self._session = session
        self._stored: dict[str, Stored] = {}

    async def prefetch(self, names: Iterable[str]) -> None:
        """Fetch those that are not known yet."""
        new = [name for name in dict.fromkeys(names) if name not in self._stored]
        if not new:
            return
        found = await self._base.raw_resources.find({"_id": {"$in": new}}, session=self._session).to_list()
        current: dict[str, Any] = {str(one["_id"]): one for one in found}
        absent = [name for name in new if name not in current]
        deletions = {name: await self._last(name) for name in await self._once_there(absent)}
        for name in new:
            self._stored[name] = Stored(current.get(name), deletions.get(name), name in current)

    async def _once_there(self, names: list[str]) -> set[str]:
        """Those of which there was a version before."""
        if not names:
            return set()
        found = self._base.history.find({"rid": {"$in": names}}, {"rid": 1, "_id": 0}, session=self._session)
        return {str(one["rid"]) async for one in found}

    async def _last(self, name: str) -> Any:
        return await self._base.raw_history.find_one({"rid": name}, sort={"version": -1}, session=self._session)

    async def get(self, name: str) -> Stored:
        if name not in self._stored:
            await self.prefetch((name,))
        return self._stored[name]

    async def current(self, names: Iterable[str]) -> list[Any]:
        """The current documents of those that have one."""
        asked = list(dict.fromkeys(names))
        await self.prefetch(asked)
        return [made for name in asked if (made := self._stored[name].current) is not None]

    def note(self, name: str, stored: Stored) -> None:
        self._stored[name] = stored

    def forget(self, name: str) -> None:
        """Ask again when it is next needed."""
        del self._stored[name]
