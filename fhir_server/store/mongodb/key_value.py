"""Key-value records and logs in MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pymongo import DeleteOne
from pymongo.errors import DuplicateKeyError

from fhir_server.store import KeyValueRecord, LinkEntries, LogEntry, system_now
from fhir_server.store.logs import PurgedLine
from fhir_server.store.mongodb import logs
from fhir_server.store.mongodb.documents import Document
from fhir_server.store.mongodb.failures import busy_if_transient
from fhir_server.store.mongodb.retry import TransactionRunner
from fhir_server.store.mongodb.schema import Connection, record_id
from fhir_server.store.mongodb.transaction import MongoTransaction

# MongoDB's TTL index uses the machine's clock, but records expire by the server's.  So they are removed a day later.
_GRACE: Final = timedelta(days=1)
_MAX_LIFETIME: Final = timedelta(days=36_500)
_CHUNK: Final = 1000


class MongoKeyValues:
    """See :class:`fhir_server.store.KeyValueStore`."""

    def __init__(self, connection: Connection, runner: TransactionRunner) -> None:
        self._connection = connection
        self._runner = runner
        self.now: Callable[[], int] = system_now

    async def put_if_absent(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> bool:
        await self._connection.ensure_ready()
        expired_record = {"_id": record_id(kind, key), "expires": {"$lte": self.now()}}
        async with busy_if_transient():
            try:
                await self._connection.secrets.replace_one(expired_record, self._document(kind, key, value, expires, family), upsert=True)
            except DuplicateKeyError:
                return False
        return True

    async def put(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> None:
        await self._connection.ensure_ready()
        async with busy_if_transient():
            document = self._document(kind, key, value, expires, family)
            try:
                await self._connection.secrets.replace_one({"_id": record_id(kind, key)}, document, upsert=True)
            except DuplicateKeyError:  # another process inserted it first; replace that
                await self._connection.secrets.replace_one({"_id": record_id(kind, key)}, document)

    async def exchange(self, kind: str, key: str, now: int, records: Sequence[KeyValueRecord]) -> bool:
        await self._connection.ensure_ready()
        stored = [(record_id(record.kind, record.key), self._document(*record)) for record in records]

        async def job(transaction: MongoTransaction) -> bool:
            return await transaction.exchange_record(record_id(kind, key), now, stored)

        return await self._runner.run(job)

    def _document(self, kind: str, key: str, value: bytes, expires: int, family: str) -> Document:
        document: Document = {"kind": kind, "key": key, "value": value, "expires": expires, "family": family}
        return document | self._removal(expires)

    def _removal(self, expires: int) -> Document:
        """The member by which MongoDB removes an expired record."""
        lifetime = timedelta(microseconds=max(0, min(expires - self.now(), 10**18)))
        return {"gone": datetime.now(UTC) + lifetime + _GRACE} if lifetime < _MAX_LIFETIME else {}

    async def replace_value(self, kind: str, key: str, old: bytes, new: bytes, expires: int | None = None) -> bool:
        await self._connection.ensure_ready()
        changes: Document = {"value": new} | ({} if expires is None else {"expires": expires} | self._removal(expires))
        async with busy_if_transient():
            # matched, not modified: a command that the driver repeats finds the new value, which is no failure
            either = {"_id": record_id(kind, key), "value": {"$in": [old, new]}}
            return bool((await self._connection.secrets.update_one(either, {"$set": changes})).matched_count)

    async def get(self, kind: str, key: str, now: int) -> bytes | None:
        await self._connection.ensure_ready()
        async with busy_if_transient():
            await self._connection.confirm_primary()
            return _value(await self._connection.secrets.find_one({"_id": record_id(kind, key), "expires": {"$gt": now}}))

    async def pop(self, kind: str, key: str, now: int) -> bytes | None:
        await self._connection.ensure_ready()
        async with busy_if_transient():
            return _value(await self._connection.secrets.find_one_and_delete({"_id": record_id(kind, key), "expires": {"$gt": now}}))

    async def delete_family(self, family: str) -> None:
        await self._connection.ensure_ready()

        async def job(transaction: MongoTransaction) -> None:
            if family:
                await transaction.delete_family(family)
            await transaction.advance_epoch(None)

        await self._runner.run(job)

    async def delete_kinds(self, kinds: Collection[str]) -> dict[str, int]:
        await self._connection.ensure_ready()
        counts = {}
        async with busy_if_transient():
            for kind in kinds:
                counts[kind] = (await self._connection.secrets.delete_many({"kind": kind})).deleted_count
        await self._runner.run(lambda transaction: transaction.advance_epoch(None))
        return counts

    async def list_all(self, kind: str, now: int) -> tuple[tuple[str, bytes], ...]:
        await self._connection.ensure_ready()
        async with busy_if_transient():
            await self._connection.confirm_primary()
            records = self._connection.secrets.find({"kind": kind, "expires": {"$gt": now}}, sort={"key": 1})
            return tuple([(record["key"], record["value"]) async for record in records])

    async def list_family(self, kind: str, family: str, now: int) -> tuple[tuple[str, bytes], ...]:
        await self._connection.ensure_ready()
        listed = {"family": family, "kind": kind, "expires": {"$gt": now}}
        async with busy_if_transient():
            await self._connection.confirm_primary()
            records = self._connection.secrets.find(listed, sort={"key": 1})
            return tuple([(record["key"], record["value"]) async for record in records])

    async def list_page(self, kind: str, now: int, skip: int, limit: int) -> tuple[int, tuple[tuple[str, bytes], ...]]:
        await self._connection.ensure_ready()
        listed = {"kind": kind, "expires": {"$gt": now}}
        async with busy_if_transient():
            await self._connection.confirm_primary()
            count = await self._connection.secrets.count_documents(listed)
            # MongoDB takes a limit of 0 for no limit.
            records = await self._connection.secrets.find(listed, sort={"key": 1}, skip=skip, limit=limit).to_list() if limit else []
            return count, tuple((record["key"], record["value"]) for record in records)

    async def purge(self, now: int) -> None:
        await self._connection.ensure_ready()
        async with busy_if_transient():
            while True:
                expired = await self._connection.secrets.find({"expires": {"$lte": now}}, {"_id": 1}, limit=_CHUNK).to_list()
                if not expired:
                    return
                await self._connection.secrets.bulk_write(
                    [DeleteOne({"_id": record["_id"], "expires": {"$lte": now}}) for record in expired]
                )


class MongoLogs:
    """Append-only logs.  Lines get their numbers in the transaction that stores them, so that no lower number appears later."""

    def __init__(self, connection: Connection, runner: TransactionRunner) -> None:
        self._connection = connection
        self._runner = runner
        self._append_lock = asyncio.Lock()  # without it, appends of this process would conflict at the counter

    async def append(self, log: str, entries: Iterable[LogEntry], link: LinkEntries) -> tuple[LogEntry, ...]:
        appended, left_out = list(entries), list[LogEntry]()
        if not appended:
            return ()
        await self._connection.ensure_ready()
        async with self._append_lock:
            while appended:
                try:
                    await self._append(log, appended, link)
                except logs.AppendedBeforeError:
                    pending = await self._pending_among(log, appended)
                    left_out += [entry for entry in appended if entry.pending and entry.pending not in pending]
                    appended = [entry for entry in appended if not entry.pending or entry.pending in pending]
                else:
                    break
        return tuple(left_out)

    async def _append(self, log: str, entries: list[LogEntry], link: LinkEntries) -> None:
        await self._runner.run(lambda transaction: transaction.append_log(log, entries, link))

    async def _pending_among(self, log: str, entries: list[LogEntry]) -> frozenset[str]:
        """The ids of those pending records of these entries that are there."""
        ids = {logs.pending_id(log, entry.pending): entry.pending for entry in entries if entry.pending}
        async with busy_if_transient():
            await self._connection.confirm_primary()
            found = self._connection.locks.find({"_id": {"$in": list(ids)}}, {"_id": 1})
            return frozenset([ids[document["_id"]] async for document in found])

    async def pending(self, log: str, after: str, limit: int) -> tuple[tuple[str, bytes], ...]:
        await self._connection.ensure_ready()
        first, start = logs.pending_id(log, after), len(logs.pending_id(log, ""))
        those = {"_id": {"$gt": first, "$lt": logs.pending_id(log, "~")}}  # ids are hexadecimal
        async with busy_if_transient():
            await self._connection.confirm_primary()
            found: Any = self._connection.locks.find(those, sort={"_id": 1}, limit=limit)
            return tuple([(document["_id"][start:], document["entry"]) async for document in found])

    async def discard(self, log: str, ids: Collection[str]) -> None:
        if ids:
            async with busy_if_transient():
                await self._connection.locks.bulk_write(logs.removals(log, ids))

    async def purge(self, log: str, purged: Sequence[PurgedLine], entry: LogEntry, link: LinkEntries) -> None:
        await self._connection.ensure_ready()

        async def job(transaction: MongoTransaction) -> None:
            number = await transaction.append_log(log, [entry], link)  # first: then others wait at the head, and this goes through
            await transaction.purge_log(log, purged, number)

        async with self._append_lock:
            await self._runner.run(job)

    async def read(self, log: str, after: int, limit: int) -> tuple[tuple[int, bytes], ...]:
        await self._connection.ensure_ready()
        async with busy_if_transient():
            await self._connection.confirm_primary()
            later = {"journal": log, "n": {"$gt": after}}
            found: Any = self._connection.journal.find(later, {"n": 1, "line": 1}, sort={"n": 1}, limit=limit)
            return tuple([(document["n"], document["line"]) async for document in found])


def _value(document: Document | None) -> bytes | None:
    return None if document is None else document["value"]
