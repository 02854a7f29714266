"""Changes of several key-value records of MongoDB in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo import DeleteOne, ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.clock import MAX_INSTANT
from fhir_server.store.mongodb.documents import Document
from fhir_server.store.mongodb.schema import Connection, record_id


async def delete_family(connection: Connection, session: AsyncClientSession, family: str) -> None:
    """Remove the records of a family."""
    found = await connection.secrets.find({"family": family}, {"_id": 1}, session=session).to_list()
    if found:
        await connection.secrets.bulk_write([DeleteOne({"_id": record["_id"]}) for record in found], session=session)


async def exchange(connection: Connection, session: AsyncClientSession, id: str, now: int, stored: Sequence[tuple[str, Document]]) -> bool:
    """Remove a record and store these documents by their ids; False if it does not exist or has expired."""
    unexpired = {"_id": id, "expires": {"$gt": now}}
    if await connection.secrets.find_one_and_delete(unexpired, {"_id": 1}, session=session) is None:
        return False
    writes = [ReplaceOne({"_id": id}, document, upsert=True) for id, document in stored]
    if writes:
        await connection.secrets.bulk_write(writes, session=session)
    return True


async def set_record(connection: Connection, session: AsyncClientSession, kind: str, key: str, value: bytes | None) -> None:
    """Store a record that does not expire, or remove it (None)."""
    id = record_id(kind, key)
    if value is None:
        await connection.secrets.delete_one({"_id": id}, session=session)
    else:
        document = {"kind": kind, "key": key, "value": value, "expires": MAX_INSTANT, "family": ""}
        await connection.secrets.replace_one({"_id": id}, document, upsert=True, session=session)
