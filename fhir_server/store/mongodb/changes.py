"""Versions in the order of time in MongoDB; see :mod:`fhir_server.store.changes`.

The documents of current and past versions have indexes by class and time.  The collection ``purged`` has the purged versions with
which somebody's newest number began.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pymongo import DeleteMany, ReplaceOne

from fhir_server.search import match
from fhir_server.search.visibility import Visibility
from fhir_server.store import Row, VersionStamp
from fhir_server.store.changes import LAST_ID, Change, ChangeKey, ChangeRange, Part, Place, Source, merge, purged_beginnings, sources
from fhir_server.store.mongodb import documents as docs
from fhir_server.store.mongodb.documents import Document

if TYPE_CHECKING:
    from fhir_server.store.mongodb.reader import MongoSnapshot

_CLASSES: Final = 40  # in one list: an index gives versions of several classes in order if they are few
_ANY_INTERACTION: Final = {"interaction": {"$in": ["create", "delete", "update"]}}  # as the indexes begin
_COLLECTIONS: Final = ("resources", "history")
_PURGED: Final = "purged"


class _List(NamedTuple):
    """A collection, and the query for versions of it that an index has in order."""

    collection: str
    query: Document


async def changes(snapshot: MongoSnapshot, visibilities: Mapping[str, Visibility], limit: int, range: ChangeRange) -> tuple[Change, ...]:
    """See :meth:`fhir_server.store.Snapshot.changes_unfiltered`."""
    lists = [
        (type, one) for type, visibility in visibilities.items() for source in sources(visibility) for one in _lists(type, source)
    ]  # fmt: skip

    async def read(parts: list[Part[_List]]) -> list[list[Place]]:
        pipelines = [
            (part.list.collection, pipeline) for part in parts for pipeline in _pipelines(part, range)
        ]  # fmt: skip
        owner = [number for number, part in enumerate(parts) for _ in _pipelines(part, range)]
        found: list[list[Place]] = [[] for _ in parts]
        for number, documents in enumerate(await snapshot.aggregated_each(pipelines)):
            found[owner[number]] += [(int(one["updated"]), str(one["id"]), int(one["version"])) for one in documents]
        return [
            sorted(set(places), reverse=not range.ascending)[: part.limit] for places, part in zip(found, parts, strict=True)
        ]  # fmt: skip

    keys = await merge(lists, range, limit, read)
    stamps = await _stamps(snapshot, keys)
    return tuple([Change(key, stamps.get((docs.document_id(key.type, key.id), key.version))) for key in keys])


async def _stamps(snapshot: MongoSnapshot, keys: Sequence[ChangeKey]) -> dict[tuple[str, int], VersionStamp]:
    """What is stored of these versions, by name and number."""
    names = sorted({docs.document_id(key.type, key.id) for key in keys})
    if not names:
        return {}
    ids = [f"{docs.document_id(key.type, key.id)}/{key.version}" for key in keys]
    fields = {**docs.STAMP, "type": 1, "id": 1}
    past = await snapshot.past_documents({"_id": {"$in": ids}, "rid": {"$in": names}}, fields)
    current = await snapshot.current_documents({"_id": {"$in": names}}, fields)
    stamps = [(docs.document_id(one["type"], one["id"]), docs.decode_stamp(one)) for one in (*past, *current)]
    return {(name, stamp.version): stamp for name, stamp in stamps}


async def newest_of(
    snapshot: MongoSnapshot, names: Sequence[tuple[str, str]], visibilities: Mapping[str, Visibility]
) -> dict[tuple[str, str], Row]:
    """See :meth:`fhir_server.store.Snapshot.newest_of`."""
    ids = sorted({docs.document_id(*name) for name in names})
    current = {one["_id"]: one for one in await snapshot.current_documents({"_id": {"$in": ids}}, docs.ROW | docs.ENTRIES)}
    found: dict[tuple[str, str], Row] = {}
    for name in names:
        document = current.get(docs.document_id(*name))
        if document is None:
            row = await snapshot.newest(*name, visibilities[name[0]])
        else:
            row = docs.decode_row(document) if match.is_visible(visibilities[name[0]], docs.searchable(document)) else None
        if row is not None:
            found[name] = row
    return found


def _lists(type: str, source: Source) -> Iterable[_List]:
    owned: Document = {"type": type} if source.patient is None else {"patients": source.patient, "type": type}
    among: Document = {} if source.ids is None else {"id": {"$in": sorted(source.ids)}}
    yield _List(_PURGED, {**owned, **among})
    named = among or _ANY_INTERACTION
    released: Document = {} if source.released is None else {"release": {"$lte": source.released}}
    classes = sorted(source.classes)
    for start in range(0, len(classes), _CLASSES):
        query = {**owned, **named, "class": {"$in": classes[start : start + _CLASSES]}, **released}
        for collection in _COLLECTIONS:
            yield _List(collection, query)


def _pipelines(part: Part[_List], range: ChangeRange) -> list[list[Document]]:
    """The pipelines for the next versions of a list; each reads one contiguous part of an index for each class, in its order."""
    updated, id, version = part.start
    if range.ascending:
        later, has_ties, end, step = "$gt", id != LAST_ID, {"$lt": range.until}, 1
    else:
        later, has_ties, end, step = "$lt", id != "", {"$gte": range.since}, -1
    rest: list[tuple[Document, tuple[str, ...]]] = [({"updated": {later: updated, **end}}, ("updated", "id", "version"))]
    if has_ties:
        rest.append(({"updated": updated, "id": {later: id}}, ("id", "version")))
        rest.append(({"updated": updated, "id": id, "version": {later: version}}, ("version",)))
    return [
        [
            {"$match": {**part.list.query, **query} if "id" not in part.list.query else {"$and": [part.list.query, query]}},
            {"$sort": dict.fromkeys(order, step)},
            {"$limit": part.limit},
            {"$project": {"_id": 0, "updated": 1, "id": 1, "version": 1}},
        ]
        for query, order in rest
    ]


def purged_documents(newest: Row, stored: Iterable[int]) -> list[Document]:
    """The documents of ``purged`` for a resource of which these versions are still stored."""
    name = docs.document_id(newest.type, newest.id)
    common = {"rid": name, "type": newest.type, "id": newest.id, "patients": list(newest.patients)}
    beginnings = purged_beginnings(newest.history, set(stored))
    return [{"_id": f"{name}/{version}", **common, "version": version, "updated": updated} for version, updated in beginnings.items()]


def replacement(name: str, documents: Sequence[Document]) -> list[Any]:
    """The writes after which ``purged`` has these documents of the resource ``Type/id``."""
    kept = [document["_id"] for document in documents]
    others = DeleteMany({"rid": name, "_id": {"$nin": kept}})
    return [others, *[ReplaceOne({"_id": document["_id"]}, document, upsert=True) for document in documents]]
