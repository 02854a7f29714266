"""Sends reading commands to MongoDB without the driver's cursors, which cost as much time as the rest of a command.

All results come with the first reply, up to MongoDB's limit for one.  The driver's cursors are used for larger results, and if the
connection breaks or the primary changes, because they repeat the command then.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import AutoReconnect, PyMongoError

from fhir_server.store.mongodb.documents import Document

_ALL: Final = 2**31 - 1  # documents in a reply; its size is limited by MongoDB


async def find(
    collection: AsyncCollection[Document], session: AsyncClientSession, query: Mapping[str, Any], fields: Mapping[str, Any], **more: Any
) -> list[Document]:
    """Return what the query finds.  ``more``: further members of the command ``find``."""
    found = await _run(collection, session, {"find": collection.name, "filter": query, "projection": fields, "batchSize": _ALL, **more})
    if found is not None:
        return found
    options = {"max_time_ms" if name == "maxTimeMS" else name: value for name, value in more.items()}
    return await collection.find(query, fields, session=session, **options).to_list()


async def aggregate(
    collection: AsyncCollection[Document], session: AsyncClientSession, pipeline: list[dict[str, Any]], **more: Any
) -> list[Document]:
    """Return what the pipeline yields.  ``more``: further members of the command ``aggregate``."""
    found = await _run(collection, session, {"aggregate": collection.name, "pipeline": pipeline, "cursor": {"batchSize": _ALL}, **more})
    if found is not None:
        return found
    return await (await collection.aggregate(pipeline, session=session, **more)).to_list()


async def _run(collection: AsyncCollection[Document], session: AsyncClientSession, command: dict[str, Any]) -> list[Document] | None:
    """Return the results of a command; None if they do not fit into one reply, or if the driver should repeat it."""
    database = collection.database
    try:
        reply = await database.command(command, session=session, codec_options=collection.codec_options)
    except AutoReconnect:
        if session.in_transaction:
            raise
        return None
    cursor = reply["cursor"]
    if not cursor["id"]:
        return list(cursor["firstBatch"])
    if not session.in_transaction:
        with suppress(PyMongoError):
            await database.command({"killCursors": collection.name, "cursors": [cursor["id"]]}, session=session)
    return None
