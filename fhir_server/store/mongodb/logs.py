"""Logs in MongoDB, in a transaction: a counter numbers their lines, and each line is a document.

A transaction that writes resources does not append its entry, because all writers would conflict at the counter.  It stores the entry
in a document of its own among the locks, which it writes anyway (:func:`pending_id`).  The transaction that appends the entry removes it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from pymongo import DeleteOne, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.store.logs import HEAD, NOT_FIRST, LinkEntries, LogEntry, PurgedLine
from fhir_server.store.mongodb.schema import Connection, head_id

PENDING: Final = {"_id": {"$gte": "pending/", "$lt": "pending0"}}
"""The documents of pending entries of all logs, in the collection ``locks``."""


class AppendedBeforeError(Exception):
    """Some of the pending entries are gone: another process has appended them."""


def counter(log: str) -> str:
    """The name of the counter that has the number of the last line."""
    return f"journal/{log}"


def pending_id(log: str, id: str) -> str:
    """The ``_id`` of a pending entry's document in the collection ``locks``."""
    return f"pending/{log}/{id}"


async def append(connection: Connection, session: AsyncClientSession, log: str, entries: Sequence[LogEntry], link: LinkEntries) -> int:
    """Append entries to a log under the next numbers, and return the first.  Pending ones are not pending any longer.

    Of two transactions that do so, one is repeated.  Raises AppendedBeforeError if some are not pending now.
    """
    name, key = counter(log), head_id(log)
    found = await connection.counters.find_one_and_update(
        {"_id": name}, {"$inc": {"value": len(entries)}}, upsert=True, return_document=ReturnDocument.BEFORE, session=session
    )
    last = found["value"] if found else 0
    if ids := [entry.pending for entry in entries if entry.pending]:
        removed = await connection.locks.bulk_write(removals(log, ids), session=session)
        if removed.deleted_count != len(ids):
            raise AppendedBeforeError
    record = await connection.secrets.find_one({"_id": key}, {"value": 1}, session=session)
    head = record["value"] if record else None
    lines, new_head = link(head, entries)
    documents = [
        {"_id": f"{name}/{n:012}", "journal": log, "n": n, "line": line} | ({"keys": sorted(set(entry.keys))} if entry.keys else {})
        for n, (entry, line) in enumerate(zip(entries, lines, strict=True), last + 1)
    ]
    await connection.journal.insert_many(documents, session=session)
    if new_head is not None and new_head != head:
        document = {"kind": HEAD, "key": log, "value": new_head, "expires": MAX_INSTANT, "family": ""}
        await connection.secrets.replace_one({"_id": key}, document, upsert=True, session=session)
    return int(last) + 1


def removals(log: str, ids: Collection[str]) -> list[DeleteOne]:
    """The writes that remove the documents of pending entries."""
    return [DeleteOne({"_id": pending_id(log, id)}) for id in ids]


async def purge(connection: Connection, session: AsyncClientSession, log: str, purged: Sequence[PurgedLine], end: int) -> None:
    """Remove the first lines of a log.  Raises Problem ``conflict`` if its first lines before number ``end`` are not exactly these."""
    numbers = [line.number for line in purged]
    among = {"journal": log, "n": {"$lt": end}}
    found = await connection.journal.find(among, {"n": 1}, sort={"n": 1}, limit=len(numbers), session=session).to_list()
    if [document["n"] for document in found] != numbers:
        raise Problem("conflict", NOT_FIRST)
    # each by its own key, so that on a sharded collection it goes to one shard
    await connection.journal.bulk_write([DeleteOne({"_id": document["_id"]}) for document in found], session=session)
