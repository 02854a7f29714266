"""Secrets and journals in MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from pymongo import DeleteOne
from pymongo.errors import DuplicateKeyError

from fhir_server.store import system_now
from fhir_server.store.mongodb.documents import Document
from fhir_server.store.mongodb.failures import answered
from fhir_server.store.mongodb.retry import TransactionRunner
from fhir_server.store.mongodb.schema import Base
from fhir_server.store.mongodb.transaction import MongoTransaction

# MongoDB removes by the machine's clock, secrets end by the server's: what has ended is kept a day longer before it goes.
_KEPT_LONGER: Final = timedelta(days=1)
_FOR_GOOD: Final = timedelta(days=36_500)
_CHUNK: Final = 1000


class MongoKeyValues:
    """See :class:`fhir_server.store.KeyValueStore`."""

    def __init__(self, base: Base, runner: TransactionRunner) -> None:
        self._base = base
        self._runner = runner
        self.now: Callable[[], int] = system_now

    async def put_if_absent(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> bool:
        await self._base.ready()
        ended = {"_id": _id(kind, key), "expires": {"$lte": self.now()}}
        async with answered():
            try:
                await self._base.secrets.replace_one(ended, self._made(kind, key, value, expires, family), upsert=True)
            except DuplicateKeyError:
                return False
        return True

    async def put(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> None:
        await self._base.ready()
        async with answered():
            made = self._made(kind, key, value, expires, family)
            try:
                await self._base.secrets.replace_one({"_id": _id(kind, key)}, made, upsert=True)
            except DuplicateKeyError:  # another was first to store; this one overwrites it
                await self._base.secrets.replace_one({"_id": _id(kind, key)}, made)

    def _made(self, kind: str, key: str, value: bytes, expires: int, family: str) -> Document:
        made: Document = {"kind": kind, "key": key, "value": value, "expires": expires, "family": family}
        life = timedelta(microseconds=max(0, min(expires - self.now(), 10**18)))
        if life < _FOR_GOOD:
            made["gone"] = datetime.now(UTC) + life + _KEPT_LONGER
        return made

    async def get(self, kind: str, key: str, now: int) -> bytes | None:
        await self._base.ready()
        async with answered():
            await self._base.sure()
            return _value(await self._base.secrets.find_one({"_id": _id(kind, key), "expires": {"$gt": now}}))

    async def pop(self, kind: str, key: str, now: int) -> bytes | None:
        await self._base.ready()
        async with answered():
            return _value(await self._base.secrets.find_one_and_delete({"_id": _id(kind, key), "expires": {"$gt": now}}))

    async def delete_family(self, family: str) -> None:
        await self._base.ready()

        async def job(transaction: MongoTransaction) -> None:
            if family:
                await transaction.delete_family(family)
            await transaction.advance_epoch(None)

        await self._runner.run(job)

    async def list_all(self, kind: str, now: int) -> tuple[tuple[str, bytes], ...]:
        await self._base.ready()
        async with answered():
            await self._base.sure()
            found = self._base.secrets.find({"kind": kind, "expires": {"$gt": now}}, sort={"key": 1})
            return tuple([(one["key"], one["value"]) async for one in found])

    async def purge(self, now: int) -> None:
        await self._base.ready()
        async with answered():
            while True:
                ended = await self._base.secrets.find({"expires": {"$lte": now}}, {"_id": 1}, limit=_CHUNK).to_list()
                if not ended:
                    return
                await self._base.secrets.bulk_write([DeleteOne({"_id": one["_id"], "expires": {"$lte": now}}) for one in ended])


class MongoJournals:
    """Append-only lines.  A journal's numbers are given in the transaction that stores the lines, so that none appears late."""

    def __init__(self, base: Base, runner: TransactionRunner) -> None:
        self._base = base
        self._runner = runner
        self._turn = asyncio.Lock()  # this process's appenders would only meet at the counter

    async def append(self, journal: str, lines: Iterable[bytes]) -> None:
        kept = list(lines)
        if not kept:
            return
        await self._base.ready()
        async with self._turn:
            await self._runner.run(lambda transaction: transaction.append(journal, kept))

    async def read(self, journal: str, after: int, limit: int) -> tuple[tuple[int, bytes], ...]:
        await self._base.ready()
        async with answered():
            await self._base.sure()
            found: Any = self._base.journal.find({"journal": journal, "n": {"$gt": after}}, {"n": 1, "line": 1}, sort={"n": 1}, limit=limit)
            return tuple([(one["n"], one["line"]) async for one in found])


def _id(kind: str, key: str) -> str:
    return f"{quote(kind, safe='')}/{key}"


def _value(made: Document | None) -> bytes | None:
    return None if made is None else made["value"]
