"""The steps that convert a MongoDB database of an earlier schema, one for each schema.

A step may be interrupted, repeated, and run by several processes at once: it changes only documents that it has read as they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server.store.former_histories import FormerDigest, converted
from fhir_server.store.mongodb import changes
from fhir_server.store.mongodb import documents as docs
from fhir_server.store.version_history import HORIZON, encode_history

_Document = dict[str, Any]

_OF_PURGED: Final = {name: 1 for name in docs.ROW if name not in ("body", "more")}
_FIELDS: Final = {"rid": 1, "version": 1, "more": 1}


class _FormerMore(msgspec.Struct, array_like=True):
    """The member ``more`` before schema 2; ``version_digests`` of all versions up to this one.  Since then it ends before that."""

    labeled_elements: msgspec.Raw
    guarded_references: msgspec.Raw
    version_digests: tuple[FormerDigest, ...] = ()


_decode = msgspec.msgpack.Decoder(_FormerMore).decode
_encode = msgspec.msgpack.Encoder().encode


async def _summarize_histories(database: AsyncDatabase[_Document]) -> None:
    """Schema 2: each version has, in ``history``, its own digest and a summary of those before it."""
    resources, history = database["resources"], database["history"]
    async for current in resources.find({"more": {"$exists": True}}, _FIELDS):
        await _summarize(history, str(current["_id"]), resources, current)
    async for deletion in history.find({"interaction": "delete", "more": {"$exists": True}}, _FIELDS):
        await _summarize(history, str(deletion["rid"]), history, deletion)


async def _summarize(history: AsyncCollection[_Document], name: str, collection: AsyncCollection[_Document], newest: _Document) -> None:
    """Convert the versions of a resource up to this one, which comes last, as long as it has all digests."""
    more = _decode(newest["more"])
    past = history.find({"rid": name, "version": {"$lt": newest["version"]}}, _FIELDS) if more.version_digests else None
    versions = [*(await past.to_list() if past is not None else ()), newest]
    histories = converted(more.version_digests)
    changes = [(version, _change(version, histories)) for version in versions]
    if older := [change for version, change in changes if change is not None and version is not newest]:
        await history.bulk_write(older, ordered=False)
    if changes[-1][1] is not None:
        await collection.bulk_write([changes[-1][1]])


def _change(version: _Document, histories: dict[int, Any]) -> UpdateOne | None:
    """The update of a version's document, if it still is as it was read; None if it needs none."""
    former = _decode(version["more"]) if "more" in version else None
    if former is None or not former.version_digests:
        return None
    key: _Document = {member: version[member] for member in ("_id", "rid", "more") if member in version}
    parts = [former.labeled_elements, former.guarded_references]
    return UpdateOne(key, {"$set": {"more": _encode(parts), "history": encode_history(histories[version["version"]])}})


async def _keep_purged_beginnings(database: AsyncDatabase[_Document]) -> None:
    """Schema 3: purged versions with which somebody's newest number began are in ``purged``."""
    if await database["secrets"].find_one({"kind": HORIZON}, {"_id": 1}) is None:
        return
    async for document in database["resources"].find({"history": {"$exists": True}}, _OF_PURGED):
        newest = docs.decode_row({"body": b"", **document})
        past = await database["history"].find({"rid": document["_id"]}, {"version": 1}).to_list()
        kept = changes.purged_documents(newest, [newest.version, *[one["version"] for one in past]])
        if kept:
            await database["purged"].bulk_write(changes.replacement(document["_id"], kept))


async def _name_records(database: AsyncDatabase[_Document]) -> None:
    """Schema 4: a row's ``record`` names its first patient and its type."""
    named = {"$set": {"record": {"$concat": [{"$first": "$patients"}, "/", "$type"]}}}
    await database["resources"].update_many({"record": {"$exists": False}, docs.FIRST_PATIENT: {"$exists": True}}, [named])


STEPS: Final[dict[int, Callable[[AsyncDatabase[_Document]], Awaitable[None]]]] = {
    2: _summarize_histories, 3: _keep_purged_beginnings, 4: _name_records,
}  # fmt: skip
"""By schema: what turns a database of the schema before it into one of this schema."""
