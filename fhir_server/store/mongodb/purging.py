"""Purges earlier versions in MongoDB; see :mod:`fhir_server.store.version_purge`."""

from __future__ import annotations

import itertools
from typing import Any, Final

from pymongo import DeleteOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.mongodb import changes
from fhir_server.store.mongodb import documents as docs
from fhir_server.store.mongodb.schema import Connection
from fhir_server.store.version_purge import StoredVersion, choose

_FIELDS: Final = dict.fromkeys(
    ("version", "updated", "class", "release", "patients", "interaction", "stored", "ref", "type", "id", "history"), 1
)


async def purge_versions(connection: Connection, session: AsyncClientSession, name: str, before: int) -> int:
    """Remove the versions of the resource ``Type/id`` that a purge removes, and return how many."""
    past = await connection.history.find({"rid": name}, _FIELDS, sort={"version": 1}, session=session).to_list()
    current = await connection.resources.find({"_id": name}, _FIELDS, session=session).to_list()
    found = [*past, *current]
    if not past or past[0]["updated"] >= before:
        return 0
    references = [{(one["p"], one["v"]) for one in document.get("ref", ())} for document in found]
    loses = [bool(one - later) for one, later in itertools.pairwise(references)] + [False]
    purge = choose([_version(document, lost) for document, lost in zip(found, loses, strict=True)], before)
    removals = [DeleteOne(docs.version_key(name, number)) for number in purge.numbers]
    places: dict[bool, list[Any]] = {True: [], False: []}
    for document in found:
        if (number := document["version"]) in purge.stored:
            is_past = document in past
            key = docs.version_key(name, number) if is_past else {"_id": name}
            places[is_past].append(UpdateOne(key, {"$set": {"stored": purge.stored[number]}}))
    if removals or places[True]:
        await connection.history.bulk_write([*removals, *places[True]], session=session)
    if places[False]:
        await connection.resources.bulk_write(places[False], session=session)
    if purge.numbers:
        stored = [document["version"] for document in found if document["version"] not in purge.numbers]
        kept = changes.purged_documents(docs.decode_row({"body": b"", **found[-1]}), stored)
        await connection.purged.bulk_write(changes.replacement(name, kept), session=session)
    return len(purge.numbers)


def _version(document: docs.Document, loses: bool) -> StoredVersion[str]:
    return StoredVersion(
        document["version"], document["updated"], document["class"], document["release"], tuple(document["patients"]),
        document["interaction"] == "delete", loses, document["stored"],
    )  # fmt: skip
