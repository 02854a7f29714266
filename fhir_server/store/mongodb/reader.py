"""Reads the MongoDB store: one consistent snapshot in one session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from fhir_server import budget
from fhir_server.errors import Problem
from fhir_server.search import match
from fhir_server.search.filters import EVERYTHING, Filter
from fhir_server.search.rows import STALE_LINK, Entry, Position, RowEntries, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import Page, PermissionEpoch, Row, VersionStamp, chains
from fhir_server.store.changes import Change, ChangeRange
from fhir_server.store.conditions import refers_to
from fhir_server.store.mongodb import changes, commands
from fhir_server.store.mongodb import documents as docs
from fhir_server.store.mongodb.documents import Document
from fhir_server.store.mongodb.newest import NewestQuery, newest_query
from fhir_server.store.mongodb.prefetch import names_in_history
from fhir_server.store.mongodb.schema import CLASSES, SECURITY, Connection, Primary, patient_counter, record_id
from fhir_server.store.mongodb.sorting import Place, row_order_keys, rows_after, sorted_ids, sorted_page
from fhir_server.store.mongodb.steps import MongoSteps
from fhir_server.store.mongodb.translate import FALSE, AccessPath, Query, access_paths, among, disjoint_counts, either
from fhir_server.store.row_order import patient_number
from fhir_server.store.version_history import HORIZON

MILLISECONDS: Final = 10_000  # time limit of one query
_TOGETHER: Final = 100  # pipelines in one command
_SHORT: Final = 0.05  # seconds up to which a query is not charged to its request
_VISIBILITY_AND_ENTRIES: Final = docs.VISIBILITY | docs.ENTRIES


T = TypeVar("T")


def _milliseconds() -> int:
    """The time limit of the next query: MILLISECONDS, or the rest of the request's budget."""
    spending = budget.current()
    return MILLISECONDS if spending is None else max(1, int(min(MILLISECONDS, 1000 * spending.remaining())))


async def _charged(query: Awaitable[T]) -> T:
    """Await a query, and charge its time to the request if it is long.  Short ones wait for the network and for other requests."""
    began = perf_counter()
    try:
        return await query
    finally:
        seconds = perf_counter() - began
        if seconds > _SHORT and (spending := budget.current()) is not None:
            spending.charge(seconds)


@dataclass(slots=True)
class _ExpectedRead:
    """A read that is expected, and what it found as soon as that is known."""

    name: str
    visibility: Visibility
    found: list[Document] | None = None


class MongoSnapshot:
    """See :class:`fhir_server.store.Snapshot`.

    All queries use ``session``.  Its first query fixes the instant of the snapshot, so ``primary`` must have answered it
    (None: the session is a transaction, and its commit checks that).
    """

    def __init__(self, connection: Connection, session: AsyncClientSession, primary: Primary = None) -> None:
        self._connection = connection
        self._session = session
        self._primary = primary
        self._classes: tuple[str, ...] | None = None
        self._expected: _ExpectedRead | None = None

    async def _find_in(self, collection: AsyncCollection[Document], query: Query, fields: Mapping[str, Any], **more: Any) -> list[Document]:
        found = commands.find(collection, self._session, query, fields, maxTimeMS=_milliseconds(), **more)
        return await self._check_primary(await _charged(found))

    async def _find_current(self, query: Query, fields: Mapping[str, Any], **more: Any) -> list[Document]:
        return await self._find_in(self._connection.resources, query, fields, **more)

    async def _aggregate(self, pipeline: list[dict[str, Any]], collection: AsyncCollection[Document] | None = None) -> list[Document]:
        source = self._connection.resources if collection is None else collection
        found = commands.aggregate(source, self._session, pipeline, maxTimeMS=_milliseconds(), allowDiskUse=True)
        return await self._check_primary(await _charged(found))

    async def current_documents(self, query: Query, fields: Mapping[str, Any], **more: Any) -> list[Document]:
        """Documents of current versions, visible or not: for the modules of this package."""
        return await self._find_current(query, fields, **more)

    async def past_documents(self, query: Query, fields: Mapping[str, Any]) -> list[Document]:
        """The same of past versions."""
        return await self._find_in(self._connection.history, query, fields)

    async def aggregated_history(self, pipeline: list[dict[str, Any]]) -> list[Document]:
        """What a pipeline yields of past versions."""
        return await self._aggregate(pipeline, self._connection.history)

    async def _check_primary(self, found: list[Document]) -> list[Document]:
        """Return ``found``.  After the first query, check that the primary answered it."""
        if self._primary is not None:
            await self._connection.require_primary(self._primary)
            self._primary = None
        return found

    def expect_read(self, type: str, id: str, visibility: Visibility) -> None:
        self._expected = _ExpectedRead(docs.document_id(type, id), visibility)

    async def read(self, type: str, id: str, visibility: Visibility) -> Row | None:
        expected, name = self._expected, docs.document_id(type, id)
        if expected is not None and expected.found is not None and (expected.name, expected.visibility) == (name, visibility):
            found = expected.found
        else:
            found = await self._find_current(_may_be_read(name, visibility), docs.ROW)
        visible = await self._admitted_documents(found, lambda _: visibility)
        return docs.decode_row(visible[0]) if visible else None

    async def _admitted_documents(self, found: list[Document], visibilities: Callable[[str], Visibility]) -> list[Document]:
        """Return those that the visibility of their type admits.  Fetches entries only if a clause has a condition."""
        by_type = {type: visibilities(type) for type in {document["type"] for document in found}}
        admitted = {document["_id"]: _is_admitted(by_type[document["type"]], document) for document in found}
        undecided = [name for name, is_admitted in admitted.items() if is_admitted is None]
        if undecided:
            for document in await self._with_entries(undecided):
                admitted[document["_id"]] = match.is_visible(by_type[document["type"]], docs.searchable(document))
        return [document for document in found if admitted[document["_id"]]]

    async def _with_entries(self, names: list[str]) -> list[Document]:
        return await self._find_current({"_id": {"$in": names}}, _VISIBILITY_AND_ENTRIES)

    async def history_horizon(self) -> int:
        found = await self._find_in(self._connection.secrets, {"_id": record_id(HORIZON, "")}, {"value": 1})
        return int(found[0]["value"]) if found else 0

    async def with_past_unfiltered(self, after: tuple[str, str], limit: int) -> tuple[tuple[str, str], ...]:
        later = {"$or": [{"type": {"$gt": after[0]}}, {"type": after[0], "id": {"$gt": after[1]}}]}
        found = await self._find_in(self._connection.history, later, {"type": 1, "id": 1}, sort={"type": 1, "id": 1}, limit=limit)
        return tuple(dict.fromkeys([(document["type"], document["id"]) for document in found]))

    async def log_lines_unfiltered(self, log: str, key: str | None, *, before: int | None, limit: int) -> tuple[tuple[int, bytes], ...]:
        query: Query = {"journal": log} if key is None else {"journal": log, "keys": key}
        if before is not None:
            query["n"] = {"$lt": before}
        found = await self._find_in(self._connection.journal, query, {"n": 1, "line": 1}, sort={"n": -1}, limit=limit)
        return tuple((document["n"], document["line"]) for document in found)

    async def records_unfiltered(self, kind: str, prefix: str = "", limit: int | None = None) -> tuple[tuple[str, bytes], ...]:
        query: Query = {"kind": kind, "key": {"$gte": prefix, "$lt": prefix + "\x7f"}}
        found = await self._find_in(self._connection.secrets, query, {"key": 1, "value": 1}, sort={"key": 1}, limit=limit or 0)
        return tuple((document["key"], document["value"]) for document in found)

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        where = await self._resolved(type, where)
        paths = access_paths(type, where, visibility)
        place = await self._resume(type, visibility, sort, after) if after else (-1, "")
        if limit < 1 or not paths:
            return Page((), None)
        if not sort:
            found = await self._in_order(paths, visibility, place, limit + 1)
            more = Position((), found[limit - 1]["id"]) if len(found) > limit else None
            return Page(tuple(map(docs.decode_row, found[:limit])), more)
        newest = newest_query(type, where, visibility, sort, limit + 1, after, place)
        if newest is not None and (documents := await self._newest_page(newest)) is not None:
            return sorted_page(documents, documents, limit, len(sort))
        narrow = await self._sorted_ids(type, where, visibility, sort, limit + 1, after, place)
        if not narrow:
            return Page((), None)
        ids = [values["_id"] for values in narrow[:limit]]
        return sorted_page(narrow, await self._find_current({"_id": {"$in": ids}}, docs.ROW), limit, len(sort))

    async def _newest_page(self, query: NewestQuery) -> list[Document] | None:
        return await query.documents(self._aggregate, self._connection.resources.name)

    async def _sorted_ids(
        self, type: str, where: Filter, visibility: Visibility, sort: tuple[SortKey, ...], limit: int, after: Position | None, place: Place
    ) -> list[Document]:
        return await self._aggregate(sorted_ids(type, where, visibility, sort, limit, after, place, self._connection.resources.name))

    async def _resume(self, type: str, visibility: Visibility, sort: tuple[SortKey, ...], after: Position) -> Place:
        found = await self._admitted_documents(
            await self._find_current({"_id": docs.document_id(type, after.id)}, docs.VISIBILITY), lambda _: visibility
        )
        if not found or len(after.keys) != len(sort):
            raise Problem("invalid", STALE_LINK)
        return found[0]["n"], found[0]["at"]

    async def _in_order(self, paths: tuple[AccessPath, ...], visibility: Visibility, place: Place, limit: int) -> list[Document]:
        query = either(*[query for path in paths for query in rows_after(path, place, visibility)])
        if query == FALSE:
            return []
        return await self._find_current(query, docs.ROW, sort=row_order_keys(visibility), limit=limit)

    async def _resolved(self, type: str, where: Filter) -> Filter:
        return await chains.resolved(type, where, MongoSteps(self._aggregate))

    async def count(self, type: str, where: Filter, visibility: Visibility, *, most: int | None = None) -> int:
        where = await self._resolved(type, where)
        ends: list[dict[str, Any]] = [*([] if most is None else [{"$limit": most}]), {"$count": "n"}]
        counts: list[list[dict[str, Any]]] = [[{"$match": query}, *ends] for query in disjoint_counts(type, where, visibility)]
        found = await self._aggregate_all(counts) if counts else []
        number = sum([int(counted["n"]) for counted in found])
        return number if most is None else min(number, most)

    async def references_of(self, type: str, param: str, visibility: Visibility, among: frozenset[str] | None = None) -> frozenset[str]:
        found: set[str] = set()
        for clause in visibility.clauses:
            paths = access_paths(type, refers_to(param, among), Visibility((clause,), visibility.now))
            if paths:
                admitted = {"ref.p": param, "ref.c": {"$in": sorted(clause.classes)}}
                matched = {"$match": either(*[path.query for path in paths])}
                groups: list[dict[str, Any]] = [
                    {"$project": {"ref": 1}},
                    {"$unwind": "$ref"},
                    {"$match": admitted},
                    {"$group": {"_id": "$ref.v"}},
                ]
                found.update([group["_id"] for group in await self._aggregate([matched, *groups])])
        return frozenset(found if among is None else found & among)

    async def entries_of(
        self, type: str, where: Filter, visibility: Visibility, params: Collection[tuple[str, str]], limit: int
    ) -> tuple[RowEntries, ...]:
        where = await self._resolved(type, where)
        fields = {"id": 1, **{docs.ARRAYS[kind][0]: 1 for _, kind in params}}
        found: dict[str, dict[Entry, None]] = {}
        for clause in visibility.clauses:
            paths = access_paths(type, where, Visibility((clause,), visibility.now))
            query = either(*[path.query for path in paths]) if paths else FALSE
            for document in await self._find_current(query, fields, limit=limit) if query != FALSE else ():
                admitted = [entry for entry in docs.decode_entries(document) if entry.class_id in clause.classes]
                wanted = {Entry(entry.param, entry.kind, entry.value): None for entry in admitted if (entry.param, entry.kind) in params}
                found.setdefault(document["id"], {}).update(wanted)
        return tuple([RowEntries(id, tuple(entries)) for id, entries in [*found.items()][:limit]])

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        found = await self._find_current({"_id": {"$in": sorted(set(targets))}}, docs.VISIBILITY)
        return frozenset([document["_id"] for document in await self._admitted_documents(found, visibilities)])

    async def deleted_unfiltered(self, targets: Iterable[str]) -> frozenset[str]:
        names = sorted(set(targets))
        if not names:
            return frozenset()
        stored = {str(group["_id"]) for group in await self._aggregate(names_in_history(names), self._connection.history)}
        current = await self._find_current({"_id": {"$in": sorted(stored)}}, {"_id": 1}) if stored else []
        return frozenset(stored - {str(document["_id"]) for document in current})

    async def newest(self, type: str, id: str, visibility: Visibility) -> Row | None:
        found = await self._newest(type, id, docs.ROW | docs.ENTRIES)
        if not all(match.is_visible(visibility, docs.searchable(document)) for document in found):
            return None
        return docs.decode_row(found[0]) if found else None

    async def newest_of(self, names: Sequence[tuple[str, str]], visibilities: Mapping[str, Visibility]) -> dict[tuple[str, str], Row]:
        return await changes.newest_of(self, names, visibilities)

    async def _newest(self, type: str, id: str, fields: Mapping[str, Any]) -> list[Document]:
        """Return the newest version; if it is a deletion, also the version that it ended."""
        rid = docs.document_id(type, id)
        current = await self._find_current({"_id": rid}, fields)
        return current or await self._find_in(self._connection.history, {"rid": rid}, fields, sort={"version": -1}, limit=2)

    async def versions(self, type: str, id: str, visibility: Visibility, numbers: Collection[int] | None = None) -> tuple[Row, ...]:
        rid, fields = docs.document_id(type, id), docs.ROW | docs.ENTRIES
        newest = (await self._newest(type, id, docs.VISIBILITY | docs.ENTRIES))[-1:]
        if not newest or not match.is_visible(visibility, docs.searchable(newest[0])):
            return ()
        chosen = {**_may_admit(visibility), **({} if numbers is None else {"version": {"$in": sorted(numbers)}})}
        past = await self._find_in(self._connection.history, {"rid": rid, **chosen}, fields, sort={"version": 1})
        current = await self._find_current({"_id": rid, **chosen}, fields)
        visible = [document for document in (*past, *current) if match.is_visible(visibility, docs.searchable(document))]
        return tuple(map(docs.decode_row, visible))

    async def stamps_unfiltered(self, type: str, id: str, numbers: Collection[int]) -> dict[int, VersionStamp]:
        rid, chosen = docs.document_id(type, id), {"version": {"$in": sorted(numbers)}}
        past = await self._find_in(self._connection.history, {"rid": rid, **chosen}, docs.STAMP)
        current = await self._find_current({"_id": rid, **chosen}, docs.STAMP)
        return {stamp.version: stamp for stamp in map(docs.decode_stamp, (*past, *current))}

    async def changes_unfiltered(self, visibilities: Mapping[str, Visibility], limit: int, range: ChangeRange) -> tuple[Change, ...]:
        return await changes.changes(self, visibilities, limit, range)

    async def aggregated_each(self, pipelines: Sequence[tuple[str, list[dict[str, Any]]]]) -> list[list[Document]]:
        """What each of these pipelines on a collection yields, by few commands: for the modules of this package."""
        found: list[list[Document]] = []
        for start in range(0, len(pipelines), _TOGETHER):
            found += await self._aggregate_together(pipelines[start : start + _TOGETHER])
        return found

    async def _aggregate_together(self, pipelines: Sequence[tuple[str, list[dict[str, Any]]]]) -> list[list[Document]]:
        numbered = [(name, [*steps, {"$set": {"pipeline": number}}]) for number, (name, steps) in enumerate(pipelines)]
        (first, steps), *others = numbered
        unions = [{"$unionWith": {"coll": name, "pipeline": other}} for name, other in others]
        found: list[list[Document]] = [[] for _ in pipelines]
        for document in await self._aggregate([*steps, *unions], self._connection.database[first]):
            found[document["pipeline"]].append(document)
        return found

    async def classes(self) -> tuple[str, ...]:
        if self._classes is None:
            found = await self._find_in(self._connection.counters, {"_id": CLASSES}, {"keys": 1})
            self._classes = tuple(found[0]["keys"]) if found else ()
        return self._classes

    async def permission_epoch(self, patient: str | None) -> PermissionEpoch:
        return epoch_from_counters({counter["_id"]: counter for counter in await self._counters(patient, {"value": 1})}, patient)

    async def _counters(self, patient: str | None, fields: Mapping[str, Any], *others: str) -> list[Document]:
        names = [SECURITY, CLASSES, *others] if patient is None else [SECURITY, CLASSES, patient_counter(patient), *others]
        among: Query = {"_id": {"$in": names}}
        expected = self._expected
        if expected is None or expected.found is not None:
            return await self._find_in(self._connection.counters, among, fields)
        row = [{"$match": _may_be_read(expected.name, expected.visibility)}, {"$project": docs.ROW}]
        with_row = {"$unionWith": {"coll": self._connection.resources.name, "pipeline": row}}
        found = await self._aggregate([{"$match": among}, {"$project": fields}, with_row], self._connection.counters)
        expected.found = [document for document in found if document["_id"] == expected.name]
        return [document for document in found if document["_id"] != expected.name]

    async def types_of_unfiltered(self, patients: frozenset[str]) -> frozenset[str]:
        if not patients:
            return frozenset()
        # Both parts use an index alone, and mostly skip from type to type.  Patients may share a number; then the result also
        # has the other's types.
        types = {"$group": {"_id": "$type"}}
        others = [{"$match": among("others", patients)}, types]
        first = {"$match": among("n", [patient_number(patient) for patient in patients])}
        return frozenset([group["_id"] for group in await self._aggregate_all([[first, types], others])])

    async def _aggregate_all(self, pipelines: list[list[dict[str, Any]]]) -> list[Document]:
        """Return what these pipelines yield, by one command."""
        name = self._connection.resources.name
        return await self._aggregate([*pipelines[0], *({"$unionWith": {"coll": name, "pipeline": other}} for other in pipelines[1:])])

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        where = await self._resolved(type, where)
        paths = access_paths(type, where, visibility)
        if not paths:
            return frozenset()
        query = either(*[path.query for path in paths])
        found = await self._aggregate([{"$match": query}, {"$unwind": "$patients"}, {"$group": {"_id": "$patients"}}])
        return frozenset([group["_id"] for group in found])


def epoch_from_counters(found: Mapping[str, Document], patient: str | None) -> PermissionEpoch:
    """Return the permission epoch from counters by name.  A missing counter is 0."""
    security, own, classes = [found.get(name, {}).get("value", 0) for name in (SECURITY, patient_counter(patient or ""), CLASSES)]
    return PermissionEpoch(security, own if patient is not None else 0, classes)


def _may_be_read(name: str, visibility: Visibility) -> Query:
    """Return the query for this row if the visibility may admit it.  So the body of a hidden row is not fetched."""
    return {"_id": name, **_may_admit(visibility)}


def _may_admit(visibility: Visibility) -> Query:
    """Return the query for rows that the visibility may admit by class, release and patient."""
    clauses = visibility.clauses
    owned: Query = {}
    if all(clause.patients is not None for clause in clauses):
        owned = among("patients", frozenset[str]().union(*[clause.patients or () for clause in clauses]))
    released = {"release": {"$lte": visibility.now}} if all(clause.released_only for clause in clauses) else {}
    return {**owned, **among("class", frozenset[int]().union(*[clause.classes for clause in clauses])), **released}


def _is_admitted(visibility: Visibility, document: Document) -> bool | None:
    """Return whether the visibility admits the row; None if that depends on its entries."""
    admitted: bool | None = False
    for clause in visibility.clauses:
        if (
            document["class"] in clause.classes
            and (clause.patients is None or not clause.patients.isdisjoint(document["patients"]))
            and (document["release"] <= visibility.now or not clause.released_only)
        ):
            if clause.where is EVERYTHING:
                return True
            admitted = None
    return admitted
