"""Logs in MongoDB, in a transaction: a counter numbers their lines, and each line is a document."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo import DeleteOne
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.store.logs import HEAD, NOT_FIRST, LinkEntries, LogEntry, PurgedLine
from fhir_server.store.mongodb.schema import Connection, head_id


def counter(log: str) -> str:
    """The name of the counter that has the number of the last line."""
    return f"journal/{log}"


async def append(connection: Connection, session: AsyncClientSession, log: str, entries: Sequence[LogEntry], link: LinkEntries) -> int:
    """Append entries to a log under the next numbers, and return the first; the caller advances the counter.

    Of two transactions that do so, one is repeated.
    """
    name, key = counter(log), head_id(log)
    found = await connection.counters.find_one({"_id": name}, session=session)
    last = found["value"] if found else 0
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


async def purge(connection: Connection, session: AsyncClientSession, log: str, purged: Sequence[PurgedLine], end: int) -> None:
    """Remove the first lines of a log.  Raises Problem ``conflict`` if its first lines before number ``end`` are not exactly these."""
    numbers = [line.number for line in purged]
    among = {"journal": log, "n": {"$lt": end}}
    found = await connection.journal.find(among, {"n": 1}, sort={"n": 1}, limit=len(numbers), session=session).to_list()
    if [document["n"] for document in found] != numbers:
        raise Problem("conflict", NOT_FIRST)
    # each by its own key, so that on a sharded collection it goes to one shard
    await connection.journal.bulk_write([DeleteOne({"_id": document["_id"]}) for document in found], session=session)
