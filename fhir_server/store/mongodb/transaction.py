"""Writes to the MongoDB store, in one transaction.

MongoDB's transactions have snapshot isolation: two that each read what the other writes may both commit.  Then a row could
get its label from an old version of its Encounter, or a client with revoked access could write.  So a transaction also
writes small lock documents for the data that its outcome depends on.  Of two transactions that write the same document,
one is repeated.  So that many can read one row, a reader writes one of several slots, and a writer writes all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

import msgspec
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.errors import Problem
from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import IndexedRow, LinkEntries, LogEntry, Page, PermissionEpoch, Row, row_order
from fhir_server.store.logs import PendingRecord, PurgedLine
from fhir_server.store.mongodb import documents as docs
from fhir_server.store.mongodb import logs, purging, records, relations
from fhir_server.store.mongodb.flushed_reads import FlushedReads
from fhir_server.store.mongodb.locks import SLOTS, claim, lock
from fhir_server.store.mongodb.newest import NewestQuery
from fhir_server.store.mongodb.prefetch import RowCache, StoredResource
from fhir_server.store.mongodb.reader import epoch_from_counters
from fhir_server.store.mongodb.schema import CLASSES, SECURITY, Connection, patient_counter
from fhir_server.store.mongodb.sorting import Place, clause_values, merged
from fhir_server.store.mongodb.write_queue import TICKETS, OutOfTurnError, blocked_keys

_PAST_LABELS: Final = {**{name: 1 for name in docs.ROW if name not in ("body", "more", "history")}, "stored": 1}
_CHANGED: Final = "The resource was changed at the same time."


class MongoTransaction(FlushedReads):
    """See :class:`fhir_server.store.Transaction`.

    Writes are collected, and sent before the next query whose result they could change, and at the end.  ``slot``
    separates concurrent transactions.  ``next_place(id)`` returns the place of a row that is stored now.  ``ticket``: the place of
    the job in the queue of writers, if it has one.
    """

    def __init__(
        self, connection: Connection, session: AsyncClientSession, slot: int, next_place: Callable[[str], str], ticket: str = ""
    ) -> None:
        super().__init__(connection, session)
        self._slot = slot
        self._next_place = next_place
        self._ticket = ticket
        self._blocked: frozenset[str] = frozenset()
        self._cache = RowCache(connection, session)
        self._epochs: dict[str | None, PermissionEpoch] = {}
        self._resources: list[Any] = []
        self._history: list[Any] = []
        self._increments: dict[str, int] = {}
        self._pending: dict[str, bytes] = {}
        self._read: set[str] = set()
        self._changed: set[str] = set()
        self._claimed: set[str] = set()
        self._written: set[str] = set()
        self._claimed_first: frozenset[str] = frozenset()

    @property
    def changed(self) -> frozenset[str]:
        """The locks of which this transaction writes all slots."""
        return frozenset(self._changed)

    @property
    def written_locks(self) -> frozenset[str]:
        """The locks that two transactions cannot both write."""
        return frozenset(self._changed | self._claimed | self._increments.keys()) | {lock("row", name) for name in self._written}

    @property
    def read_locks(self) -> frozenset[str]:
        """The locks of which this transaction writes one slot."""
        return frozenset(self._read)

    def _require_turn(self) -> None:
        if self._blocked and not self._blocked.isdisjoint(self.written_locks):
            raise OutOfTurnError

    async def claim(self, names: Iterable[str]) -> None:
        """Write all slots of these locks now.

        At the end of a long transaction some slot has usually been written by another one since it began, so it would never succeed.
        """
        self._claimed_first = frozenset(names)
        await self._write_locks([f"{name}:{slot}" for name in sorted(self._claimed_first) for slot in range(SLOTS)])

    async def _write_locks(self, ids: Iterable[str]) -> None:
        """Write these lock documents, and pending entries of logs with them: one command."""
        writes = [UpdateOne({"_id": id}, {"$inc": {"value": 1}}, upsert=True) for id in ids]
        writes += [UpdateOne({"_id": id}, {"$set": {"entry": content}}, upsert=True) for id, content in self._pending.items()]
        if writes:
            await self._connection.locks.bulk_write(writes, session=self._session, ordered=False)

    async def prefetch(self, names: Iterable[str]) -> None:
        await self._cache.prefetch(names)

    def expect_read(self, type: str, id: str, visibility: Visibility) -> None:
        """Do nothing: rows of a transaction come from its cache."""

    async def read(self, type: str, id: str, visibility: Visibility) -> Row | None:
        visible = await self._admitted_documents(await self._cache.current((docs.document_id(type, id),)), lambda _: visibility)
        return docs.decode_row(visible[0]) if visible else None

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        await self._flush()
        self._claimed.add(lock("claim", claim(type, where)))
        return await super().find(type, where, visibility, sort=sort, limit=limit, after=after)

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        return frozenset([document["_id"] for document in await self._admitted_documents(await self._cache.current(targets), visibilities)])

    async def _with_entries(self, names: list[str]) -> list[docs.Document]:
        return await self._cache.current(names)

    async def _aggregate_all(self, pipelines: list[list[dict[str, Any]]]) -> list[docs.Document]:
        # MongoDB's transactions have no $unionWith
        return [document for pipeline in pipelines for document in await self._aggregate(pipeline)]

    async def _aggregate_together(self, pipelines: Sequence[tuple[str, list[dict[str, Any]]]]) -> list[list[docs.Document]]:
        return [await self._aggregate(pipeline, self._connection.database[name]) for name, pipeline in pipelines]

    async def _sorted_ids(
        self, type: str, where: Filter, visibility: Visibility, sort: tuple[SortKey, ...], limit: int, after: Position | None, place: Place
    ) -> list[docs.Document]:
        parts = clause_values(type, where, visibility, sort, self._connection.resources.name)
        if len(parts) < 2:
            return await super()._sorted_ids(type, where, visibility, sort, limit, after, place)
        found = [document for part in parts for document in await self._aggregate(part)]
        return merged(found, visibility, sort, limit, after, place)

    async def _newest_page(self, query: NewestQuery) -> list[docs.Document] | None:
        return None  # MongoDB's transactions have neither $unionWith nor $lookup in a sharded collection

    async def permission_epoch(self, patient: str | None) -> PermissionEpoch:
        if patient not in self._epochs:
            self._epochs[patient] = await self._load_epoch(patient)
        epoch = self._epochs[patient]
        self._read.add(SECURITY)
        if patient is not None:
            self._read.add(lock("patient", patient))
        increment = self._increments.get(patient_counter(patient), 0) if patient is not None else 0
        return PermissionEpoch(epoch.security + self._increments.get(SECURITY, 0), epoch.patient + increment, len(await self.classes()))

    async def _load_epoch(self, patient: str | None) -> PermissionEpoch:
        """Return the permission epoch at the start of the transaction.  Loads the classes too, because most transactions need them."""
        found = {counter["_id"]: counter for counter in await self._counters(patient, {"value": 1, "keys": 1, "waiting": 1}, TICKETS)}
        self._blocked = blocked_keys(found.pop(TICKETS, {}).get("waiting", ()), self._ticket)
        if self._classes is None:
            self._classes = tuple(found.get(CLASSES, {}).get("keys", ()))
        return epoch_from_counters(found, patient)

    async def read_unfiltered(self, type: str, id: str) -> Row | None:
        name = docs.document_id(type, id)
        stored = await self._cache.get(name)
        if name not in self._written:
            self._note_read(name, stored)
        document = stored.current or stored.deletion
        return docs.decode_row(document) if document else None

    def _note_read(self, name: str, stored: StoredResource) -> None:
        """Record that the outcome depends on this row's state, or on its absence."""
        if stored.existed:
            self._read.add(lock("row", name))
        else:
            self._claimed.add(lock("absent", name))

    async def read_past_unfiltered(self, type: str, id: str, first: int = 1, last: int | None = None) -> tuple[Row, ...]:
        await self._flush()
        name = docs.document_id(type, id)
        end = (await self._cache.get(name)).version - 1 if last is None else last
        found = await self._find_in(
            self._connection.history, {"rid": name, "version": {"$gte": first, "$lte": end}}, docs.ROW, sort={"version": 1}
        )
        return tuple(map(docs.decode_row, found))

    async def put(self, indexed: IndexedRow) -> None:
        row = indexed.row
        name = docs.document_id(row.type, row.id)
        stored = await self._cache.get(name)
        _require_next_version(row, stored.version)
        if stored.current is not None:
            self._history.append(InsertOne(docs.history_document(stored.current)))
        stored_at = self._next_place(row.id)
        self._set_current(
            name, stored, docs.encode_document(row, indexed.entries, stored_at, await self._first_stored(name, stored, row, stored_at))
        )

    async def delete(self, row: Row) -> None:
        name = docs.document_id(row.type, row.id)
        stored = await self._cache.get(name)
        if stored.current is None:
            raise Problem("conflict", "There is no current version.")
        _require_next_version(row, stored.version)
        stored_at = self._next_place(row.id)
        deletion = docs.encode_document(msgspec.structs.replace(row, body=b"", interaction="delete"), (), stored_at, stored_at)
        deletion |= {array: stored.current[array] for array in docs.ENTRIES if array in stored.current}
        self._history += [InsertOne(docs.history_document(stored.current)), InsertOne(docs.history_document(deletion))]
        self._resources.append(DeleteOne({"_id": name}))
        self._cache.set(name, StoredResource(None, deletion, stored.existed))
        self._note_write(name)

    async def relabel(self, *versions: IndexedRow) -> None:
        name = docs.document_id(versions[-1].row.type, versions[-1].row.id)
        stored = await self._cache.get(name)
        is_current = stored.current is not None and stored.version == versions[-1].row.version
        past = versions[:-1] if is_current else versions
        if past:
            await self._flush()
            for indexed in past:
                await self._relabel_past(name, indexed)
        if stored.current is None:
            self._cache.forget(name)
            await self._flush()
        elif is_current:
            document = docs.relabeled_document(stored.current, versions[-1])
            before = None if past else stored
            document["at"] = await self._first_stored(name, before, docs.decode_row(document), document["stored"])
            self._set_current(name, stored, document)
        else:
            document = dict(stored.current.items())
            document["at"] = await self._first_stored(name, None, docs.decode_row(document), document["stored"])
            document["settled"] = document.get("settled", 0) + 1  # write the document even if its place did not change
            self._set_current(name, stored, document)

    async def _relabel_past(self, name: str, indexed: IndexedRow) -> None:
        found = await self._connection.history.find_one(docs.version_key(name, indexed.row.version), session=self._session)
        if found is None:
            raise Problem("conflict", _CHANGED)
        past = {**docs.relabeled_document({**found, "_id": name}, indexed), "_id": found["_id"], "rid": name}
        self._history.append(ReplaceOne(docs.version_key(name, indexed.row.version), past))

    async def _first_stored(self, name: str, before: StoredResource | None, row: Row, stored_at: str) -> str:
        """Return when the row counts as stored (:mod:`~fhir_server.store.row_order`); ``stored_at``: when this version was."""
        if before is not None and before.version == 0:
            return stored_at
        if before is not None and before.current is not None and docs.has_same_view(before.current, row):
            return str(before.current["at"])
        await self._flush()
        alike = {"rid": name, "class": row.class_id, "release": row.release_at}
        past = await self._find_in(self._connection.history, alike, _PAST_LABELS, sort={"version": 1})
        chain = [(docs.decode_row({"body": b"", **document}), str(document["stored"])) for document in past]
        return row_order.first_stored([*chain, (row, stored_at)])

    def _set_current(self, name: str, stored: StoredResource, document: docs.Document) -> None:
        """Store this as the current document."""
        self._resources.append(InsertOne(document) if stored.current is None else ReplaceOne({"_id": name}, document))
        self._cache.set(name, StoredResource(document, None, stored.existed))
        self._note_write(name)

    def _note_write(self, name: str) -> None:
        self._written.add(name)
        self._require_turn()
        self._read.discard(lock("row", name))  # the write of the row's stored_at document has the same effect

    async def purge_versions_unfiltered(self, type: str, id: str, before: int) -> int:
        name = docs.document_id(type, id)
        await self._cache.get(name)
        await self._flush()
        count = await purging.purge_versions(self._connection, self._session, name, before)
        if count:
            self._cache.forget(name)
            self._note_write(name)
            self._changed.add(lock("row", name))
        return count

    async def erase_unfiltered(self, type: str, id: str) -> int:
        name = docs.document_id(type, id)
        await self._cache.get(name)
        await self._flush()
        await self._connection.purged.delete_many({"rid": name}, session=self._session)
        count = (await self._connection.history.delete_many({"rid": name}, session=self._session)).deleted_count
        count += (await self._connection.resources.delete_many({"_id": name}, session=self._session)).deleted_count
        self._cache.forget(name)
        self._note_write(name)
        self._changed.add(lock("row", name))
        return count

    async def referrers_unfiltered(self, target: str, params: frozenset[str] | None = None, limit: int | None = None) -> tuple[Row, ...]:
        if (await self._cache.get(target)).existed:
            self._changed.add(lock("row", target))
        else:
            self._claimed.add(lock("absent", target))
        await self._flush()
        found, past = await relations.referrers(self, target, params, limit)
        for name in sorted(past - found.keys())[:limit]:
            stored = await self._cache.get(name)
            found[name] = docs.decode_row(stored.current or stored.deletion)
        return tuple(found.values())[:limit]

    async def referrer_names_unfiltered(
        self, targets: Collection[str], after: str = "", limit: int | None = None
    ) -> dict[str, tuple[str, ...]]:
        await self._flush()
        return await relations.referrer_names(self, targets, after, limit)

    async def referred_names_unfiltered(self, names: Collection[str], params: frozenset[str]) -> frozenset[str]:
        await self._flush()
        return await relations.referred_names(self, names, params)

    async def set_record(self, kind: str, key: str, value: bytes | None) -> None:
        await records.set_record(self._connection, self._session, kind, key, value)

    async def intern_class(self, key: str) -> int:
        number = self._connection.class_numbers.get(key)
        if number is not None:
            return number
        keys = await self.classes()
        if key in keys:
            return keys.index(key)
        change = {"$push": {"keys": key}, "$inc": {"value": 1}}
        await self._connection.counters.update_one({"_id": CLASSES, "keys": {"$size": len(keys)}}, change, session=self._session)
        self._classes = (*keys, key)
        return len(keys)

    async def advance_epoch(self, patient: str | None) -> None:
        name = SECURITY if patient is None else patient_counter(patient)
        self._increments[name] = self._increments.get(name, 0) + 1
        self._changed.add(SECURITY if patient is None else lock("patient", patient))

    async def delete_family(self, family: str) -> None:
        """See :func:`fhir_server.store.mongodb.records.delete_family`."""
        await records.delete_family(self._connection, self._session, family)

    async def exchange_record(self, id: str, now: int, stored: Sequence[tuple[str, docs.Document]]) -> bool:
        """See :func:`fhir_server.store.mongodb.records.exchange`."""
        return await records.exchange(self._connection, self._session, id, now, stored)

    def log_at_commit(self, log: str, entry: LogEntry, link: LinkEntries, record: PendingRecord) -> LogEntry | None:
        if not self._written and not self._increments:
            return entry
        id, content = record()  # appending it here would make concurrent transactions conflict at the head of the log
        self._pending[logs.pending_id(log, id)] = content
        return entry._replace(pending=id)

    async def append_log(self, log: str, entries: Sequence[LogEntry], link: LinkEntries) -> int:
        """See :func:`fhir_server.store.mongodb.logs.append`."""
        return await logs.append(self._connection, self._session, log, entries, link)

    async def purge_log(self, log: str, purged: Sequence[PurgedLine], end: int) -> None:
        """See :func:`fhir_server.store.mongodb.logs.purge`."""
        await logs.purge(self._connection, self._session, log, purged, end)

    async def _flush(self) -> None:
        """Send the rows collected so far."""
        history, self._history = self._history, []
        resources, self._resources = self._resources, []
        if history:
            await self._connection.history.bulk_write(history, session=self._session)
        if resources:
            await self._connection.resources.bulk_write(resources, session=self._session)

    async def finish(self) -> None:
        """Send everything that is left, before the commit."""
        self._require_turn()
        await self._flush()
        if not self._written and not self._increments:
            return
        increments = [UpdateOne({"_id": name}, {"$inc": {"value": by}}, upsert=True) for name, by in self._increments.items()]
        if increments:
            await self._connection.counters.bulk_write(increments, session=self._session)
        await self._write_locks(sorted(self._locks()))

    def _locks(self) -> set[str]:
        """Return the lock documents to write: all slots of locks for changed data, one slot of locks for data that was read."""
        changed = {f"{name}:{slot}" for name in self._changed - self._claimed_first for slot in range(SLOTS)}
        return changed | self._claimed | {f"{name}:{self._slot}" for name in self._read}


def _require_next_version(row: Row, version: int) -> None:
    if row.version != version + 1:
        raise Problem("conflict", _CHANGED)
