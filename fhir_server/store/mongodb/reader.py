"""Reading the MongoDB store: one consistent snapshot, through one session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from fhir_server.errors import Problem
from fhir_server.search import match
from fhir_server.search.filters import EVERYTHING, Filter
from fhir_server.search.rows import STALE_LINK, Position, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import Page, PermissionEpoch, Row
from fhir_server.store.mongodb import documents as docs
from fhir_server.store.mongodb.documents import Document
from fhir_server.store.mongodb.schema import CLASSES, SECURITY, Base, Primary, of_patient
from fhir_server.store.mongodb.sorting import Place, beyond, order, sorted_ids
from fhir_server.store.mongodb.translate import FALSE, AccessPath, Query, access_paths, among, either
from fhir_server.store.row_order import patient_number

MILLISECONDS: Final = 10_000  # after which one reading is given up
_JUDGED_BY_ENTRIES: Final = docs.JUDGED | docs.ENTRIES


class MongoSnapshot:
    """See :class:`fhir_server.store.Snapshot`.

    Everything is read through ``session``.  Its first reading fixes the instant that all show, and so must have been of
    ``primary`` (None: the session is a transaction, whose commit will tell).
    """

    def __init__(self, base: Base, session: AsyncClientSession, primary: Primary = None) -> None:
        self._base = base
        self._session = session
        self._primary = primary
        self._classes: tuple[str, ...] | None = None

    async def _found(self, collection: AsyncCollection[Document], query: Query, fields: Mapping[str, Any], **more: Any) -> list[Document]:
        found = collection.find(query, fields, session=self._session, max_time_ms=MILLISECONDS, **more)
        return await self._fixed(await found.to_list())

    async def _documents(self, query: Query, fields: Mapping[str, Any], **more: Any) -> list[Document]:
        return await self._found(self._base.resources, query, fields, **more)

    async def _aggregate(self, pipeline: list[dict[str, Any]]) -> list[Document]:
        found = await self._base.resources.aggregate(pipeline, session=self._session, maxTimeMS=MILLISECONDS, allowDiskUse=True)
        return await self._fixed(await found.to_list())

    async def _fixed(self, found: list[Document]) -> list[Document]:
        if self._primary is not None:
            await self._base.require(self._primary)
            self._primary = None
        return found

    async def read(self, type: str, id: str, visibility: Visibility) -> Row | None:
        found = await self._documents({"_id": docs.name(type, id)}, docs.ROW)
        shown = await self._admitted(found, lambda _: visibility)
        return docs.row(shown[0]) if shown else None

    async def _admitted(self, found: list[Document], visibilities: Callable[[str], Visibility]) -> list[Document]:
        """Those that the sight of their type admits, with entries fetched only where a window asks for them."""
        known = {type: visibilities(type) for type in {one["type"] for one in found}}
        verdicts = {one["_id"]: _verdict(known[one["type"]], one) for one in found}
        asked = [name for name, verdict in verdicts.items() if verdict is None]
        if asked:
            for one in await self._with_entries(asked):
                verdicts[one["_id"]] = match.is_visible(known[one["type"]], docs.indexed(one))
        return [one for one in found if verdicts[one["_id"]]]

    async def _with_entries(self, names: list[str]) -> list[Document]:
        return await self._documents({"_id": {"$in": names}}, _JUDGED_BY_ENTRIES)

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        parts = access_paths(type, where, visibility)
        place = await self._resume(type, visibility, sort, after) if after else (-1, "")
        if limit < 1 or not parts:
            return Page((), None)
        if not sort:
            found = await self._in_order(parts, visibility, place, limit + 1)
            more = Position((), found[limit - 1]["id"]) if len(found) > limit else None
            return Page(tuple(map(docs.row, found[:limit])), more)
        pipeline = sorted_ids(type, where, visibility, sort, limit + 1, after, place, self._base.resources.name)
        narrow = await self._aggregate(pipeline)
        if not narrow:
            return Page((), None)
        wide = {one["_id"]: one for one in await self._documents({"_id": {"$in": [one["_id"] for one in narrow[:limit]]}}, docs.ROW)}
        rows = tuple([docs.row(wide[one["_id"]]) for one in narrow[:limit]])
        last = tuple([docs.plain(narrow[limit - 1][f"k{n}"]) for n in range(len(sort))]) if len(narrow) > limit else ()
        return Page(rows, Position(last, rows[-1].id) if len(narrow) > limit else None)

    async def _resume(self, type: str, visibility: Visibility, sort: tuple[SortKey, ...], after: Position) -> Place:
        found = await self._admitted(await self._documents({"_id": docs.name(type, after.id)}, docs.JUDGED), lambda _: visibility)
        if not found or len(after.keys) != len(sort):
            raise Problem("invalid", STALE_LINK)
        return found[0]["n"], found[0]["at"]

    async def _in_order(self, parts: tuple[AccessPath, ...], visibility: Visibility, place: Place, limit: int) -> list[Document]:
        query = either(*[one for part in parts for one in _resumed(part, place, visibility)])
        if query == FALSE:
            return []
        return await self._documents(query, docs.ROW, sort=order(visibility), limit=limit)

    async def count(self, type: str, where: Filter, visibility: Visibility) -> int:
        parts = access_paths(type, where, visibility)
        if not parts:
            return 0
        found = await self._aggregate([{"$match": either(*[part.query for part in parts])}, {"$count": "n"}])
        return int(found[0]["n"]) if found else 0

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        found = await self._documents({"_id": {"$in": sorted(set(targets))}}, docs.JUDGED)
        return frozenset([one["_id"] for one in await self._admitted(found, visibilities)])

    async def versions(self, type: str, id: str, visibility: Visibility) -> tuple[Row, ...]:
        rid, fields = docs.name(type, id), docs.ROW | docs.ENTRIES
        past = await self._found(self._base.history, {"rid": rid}, fields, sort={"version": 1})
        kept = [*past, *await self._documents({"_id": rid}, fields)]
        shown: list[Row] = []
        newest = False
        for made in kept:
            admitted = match.is_visible(visibility, docs.indexed(made))
            if admitted:
                shown.append(docs.row(made))
            if made["interaction"] != "delete":
                newest = admitted
        return tuple(shown) if newest else ()

    async def classes(self) -> tuple[str, ...]:
        if self._classes is None:
            found = await self._found(self._base.counters, {"_id": CLASSES}, {"keys": 1})
            self._classes = tuple(found[0]["keys"]) if found else ()
        return self._classes

    async def permission_epoch(self, patient: str | None) -> PermissionEpoch:
        return counted({one["_id"]: one for one in await self._counters(patient, {"value": 1})}, patient)

    async def _counters(self, patient: str | None, fields: Mapping[str, Any]) -> list[Document]:
        names = [SECURITY, CLASSES] if patient is None else [SECURITY, CLASSES, of_patient(patient)]
        return await self._found(self._base.counters, {"_id": {"$in": names}}, fields)

    async def types_of(self, patients: frozenset[str]) -> frozenset[str]:
        if not patients:
            return frozenset()
        # Both are answered from an index alone, mostly by leaps from type to type.  Patients may share a number: then a type
        # of the other one is named too, and asked in vain.
        types = {"$group": {"_id": "$type"}}
        others = [{"$match": among("others", patients)}, types]
        first = {"$match": among("n", [patient_number(patient) for patient in patients])}
        found = await self._aggregate([first, types, {"$unionWith": {"coll": self._base.resources.name, "pipeline": others}}])
        return frozenset([one["_id"] for one in found])

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        parts = access_paths(type, where, visibility)
        if not parts:
            return frozenset()
        query = either(*[part.query for part in parts])
        found = await self._aggregate([{"$match": query}, {"$unwind": "$patients"}, {"$group": {"_id": "$patients"}}])
        return frozenset([one["_id"] for one in found])


def counted(found: Mapping[str, Document], patient: str | None) -> PermissionEpoch:
    """The stamp, of counters by their names; what was never counted stands at 0."""
    security, own, classes = [found.get(name, {}).get("value", 0) for name in (SECURITY, of_patient(patient or ""), CLASSES)]
    return PermissionEpoch(security, own if patient is not None else 0, classes)


def _verdict(visibility: Visibility, made: Document) -> bool | None:
    """Whether the sight admits the row; None if that depends on its entries."""
    verdict: bool | None = False
    for clause in visibility.clauses:
        if (
            made["class"] in clause.classes
            and (clause.patients is None or not clause.patients.isdisjoint(made["patients"]))
            and (made["release"] <= visibility.now or not clause.released_only)
        ):
            if clause.where is EVERYTHING:
                return True
            verdict = None
    return verdict


def _resumed(part: AccessPath, place: Place, visibility: Visibility) -> Iterable[Query]:
    """The part of an answer behind this place, in parts that each are one stretch of an index."""
    if place[0] < 0:
        return (part.query,)
    if part.numbers is None or visibility.limited_to_patients:
        return tuple([{"$and": [part.query, way]} for way in beyond(place, visibility)])
    ways: list[Query] = []
    later = [number for number in part.numbers if number > place[0]]
    if later:
        ways.append({"$and": [part.query, {"n": {"$in": later}}]})
    if place[0] in part.numbers:
        ways.append({"$and": [part.query, {"n": place[0], "at": {"$gt": place[1]}}]})
    return ways
