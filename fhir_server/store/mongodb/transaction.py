"""Writing to the MongoDB store, inside one transaction.

MongoDB isolates transactions by snapshot: two that each read what the other writes may both commit, which here could
label a row by what its Encounter was, or let a revoked grant write.  So a transaction also writes small lock documents
for what its outcome rests on, and of two that touch the same document one is run again.  Many may read one row, so a
reader touches one of several slots and whoever changes what is read touches them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.errors import Problem
from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import IndexedRow, Page, PermissionEpoch, Row, row_order
from fhir_server.store.mongodb import documents as docs
from fhir_server.store.mongodb.locks import SLOTS, claim, lock
from fhir_server.store.mongodb.prefetch import KnownRows, Stored
from fhir_server.store.mongodb.reader import MongoSnapshot, counted
from fhir_server.store.mongodb.schema import CLASSES, SECURITY, Base, of_patient
from fhir_server.store.mongodb.sorting import ORDER

_CHAIN: Final = {**{name: 1 for name in docs.ROW if name not in ("body", "more")}, "stored": 1}
_CHANGED: Final = "The resource was changed at the same time."


class MongoTransaction(MongoSnapshot):
    """See :class:`fhir_server.store.Transaction`.

    Writes are gathered and sent before the next question that they could change the answer of, and at the end.
    ``slot`` spreads transactions that run at once; ``next_place`` gives places in the order first stored.
    """

    def __init__(self, base: Base, session: AsyncClientSession, slot: int, next_place: Callable[[str], str]) -> None:
        super().__init__(base, session)
        self._slot = slot
        self._next_place = next_place
        self._known = KnownRows(base, session)
        self._counted: dict[str | None, PermissionEpoch] = {}
        self._resources: list[Any] = []
        self._history: list[Any] = []
        self._bumped: dict[str, int] = {}
        self._read: set[str] = set()
        self._changed: set[str] = set()
        self._claimed: set[str] = set()
        self._written: set[str] = set()

    async def prefetch(self, names: Iterable[str]) -> None:
        await self._known.prefetch(names)

    async def read(self, type: str, id: str, visibility: Visibility) -> Row | None:
        shown = await self._admitted(await self._known.current((docs.name(type, id),)), lambda _: visibility)
        return docs.row(shown[0]) if shown else None

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        await self._flush()
        self._claimed.add(lock("claim", claim(type, where)))
        return await super().find(type, where, visibility, sort=sort, limit=limit, after=after)

    async def count(self, type: str, where: Filter, visibility: Visibility) -> int:
        await self._flush()
        return await super().count(type, where, visibility)

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        return frozenset([one["_id"] for one in await self._admitted(await self._known.current(targets), visibilities)])

    async def _with_entries(self, names: list[str]) -> list[docs.Document]:
        return await self._known.current(names)

    async def versions(self, type: str, id: str, visibility: Visibility) -> tuple[Row, ...]:
        await self._flush()
        return await super().versions(type, id, visibility)

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        await self._flush()
        return await super().patients_of(type, where, visibility)

    async def permission_epoch(self, patient: str | None) -> PermissionEpoch:
        if patient not in self._counted:
            self._counted[patient] = await self._count(patient)
        kept = self._counted[patient]
        self._read.add(SECURITY)
        if patient is not None:
            self._read.add(lock("patient", patient))
        mine = self._bumped.get(of_patient(patient), 0) if patient is not None else 0
        return PermissionEpoch(kept.security + self._bumped.get(SECURITY, 0), kept.patient + mine, len(await self.classes()))

    async def _count(self, patient: str | None) -> PermissionEpoch:
        """The stamp that the transaction began with, and with it the classes, which most transactions ask for."""
        found = {one["_id"]: one for one in await self._counters(patient, {"value": 1, "keys": 1})}
        if self._classes is None:
            self._classes = tuple(found.get(CLASSES, {}).get("keys", ()))
        return counted(found, patient)

    async def read_unfiltered(self, type: str, id: str) -> Row | None:
        name = docs.name(type, id)
        stored = await self._known.get(name)
        if name not in self._written:
            self._reads(name, stored)
        made = stored.current or stored.deletion
        return docs.row(made) if made else None

    def _reads(self, name: str, stored: Stored) -> None:
        """What comes of this transaction rests on this row's being as it is, or on its not being there."""
        if stored.existed:
            self._read.add(lock("row", name))
        else:
            self._claimed.add(lock("absent", name))

    async def read_past_unfiltered(self, type: str, id: str) -> tuple[Row, ...]:
        await self._flush()
        name = docs.name(type, id)
        stored = await self._known.get(name)
        found = await self._versions(name, docs.ROW)
        return tuple(map(docs.row, found if stored.current else found[:-1]))

    async def _versions(self, name: str, fields: docs.Document) -> list[docs.Document]:
        """All versions of a resource but the one that is current, oldest first."""
        return await self._found(self._base.history, {"rid": name}, fields, sort={"version": 1})

    async def put(self, record: IndexedRow) -> None:
        row = record.row
        name = docs.name(row.type, row.id)
        stored = await self._known.get(name)
        _follows(row, stored.version)
        if stored.current is not None:
            self._history.append(InsertOne(docs.past(stored.current)))
        own = self._next_place(row.id)
        self._stand(name, stored, docs.document(row, record.entries, own, await self._place(name, stored, row, own)))

    async def delete(self, row: Row) -> None:
        name = docs.name(row.type, row.id)
        stored = await self._known.get(name)
        if stored.current is None:
            raise Problem("conflict", "There is no current version.")
        _follows(row, stored.version)
        own = self._next_place(row.id)
        deletion = docs.document(msgspec.structs.replace(row, body=b"", interaction="delete"), (), own, own)
        deletion |= {array: stored.current[array] for array in docs.ENTRIES if array in stored.current}
        self._history += [InsertOne(docs.past(stored.current)), InsertOne(docs.past(deletion))]
        self._resources.append(DeleteOne({"_id": name}))
        self._known.note(name, Stored(None, deletion, stored.existed))
        self._wrote(name)

    async def relabel(self, record: IndexedRow) -> None:
        name = docs.name(record.row.type, record.row.id)
        stored = await self._known.get(name)
        if stored.current is not None and stored.version == record.row.version:
            made = _relabelled(stored.current, record)
            made["at"] = await self._place(name, stored, docs.row(made), made["stored"])
            self._stand(name, stored, made)
            return
        await self._flush()
        found = await self._base.history.find_one(docs.of_version(name, record.row.version), session=self._session)
        if found is None:
            raise Problem("conflict", _CHANGED)
        past = {**_relabelled({**found, "_id": name}, record), "_id": found["_id"], "rid": name}
        self._history.append(ReplaceOne(docs.of_version(name, record.row.version), past))
        if stored.current is None:
            self._known.forget(name)
            await self._flush()
        else:
            made = dict(stored.current.items())
            made["at"] = await self._place(name, None, docs.row(made), made["stored"])
            made["settled"] = made.get("settled", 0) + 1  # that the document is written though its place may be the same
            self._stand(name, stored, made)

    async def _place(self, name: str, before: Stored | None, row: Row, own: str) -> str:
        """Where a current version that was stored at ``own`` stands (:mod:`~fhir_server.store.row_order`)."""
        if before is not None and before.version == 0:
            return own
        if before is not None and before.current is not None and _same_view(before.current, row):
            return str(before.current["at"])
        await self._flush()
        chain = [(docs.row({"body": b"", **made}), str(made["stored"])) for made in await self._versions(name, _CHAIN)]
        return row_order.first([*chain, (row, own)])

    def _stand(self, name: str, stored: Stored, made: docs.Document) -> None:
        """Make this the current document."""
        self._resources.append(InsertOne(made) if stored.current is None else ReplaceOne({"_id": name}, made))
        self._known.note(name, Stored(made, None, stored.existed))
        self._wrote(name)

    def _wrote(self, name: str) -> None:
        self._written.add(name)
        self._read.discard(lock("row", name))  # the row's own document says so already

    async def referrers(self, target: str, params: frozenset[str] | None = None) -> tuple[Row, ...]:
        if (await self._known.get(target)).existed:
            self._changed.add(lock("row", target))
        else:
            self._claimed.add(lock("absent", target))
        await self._flush()
        found: dict[str, Row] = {}
        once: set[str] = set()
        for type, elements in _asked(target, params).items():
            among = {**({} if type is None else {"type": type}), "ref": {"$elemMatch": elements}}
            found |= {one["_id"]: docs.row(one) for one in await self._documents(among, docs.ROW, sort=ORDER)}
            once |= {one["rid"] for one in await self._found(self._base.history, among, {"rid": 1, "_id": 0})}
        for name in sorted(once - found.keys()):
            stored = await self._known.get(name)
            found[name] = docs.row(stored.current or stored.deletion)
        return tuple(found.values())

    async def intern_class(self, key: str) -> int:
        known = self._base.class_numbers.get(key)
        if known is not None:
            return known
        keys = await self.classes()
        if key in keys:
            return keys.index(key)
        change = {"$push": {"keys": key}, "$inc": {"value": 1}}
        await self._base.counters.update_one({"_id": CLASSES, "keys": {"$size": len(keys)}}, change, session=self._session)
        self._classes = (*keys, key)
        return len(keys)

    async def advance_epoch(self, patient: str | None) -> None:
        name = SECURITY if patient is None else of_patient(patient)
        self._bumped[name] = self._bumped.get(name, 0) + 1
        self._changed.add(SECURITY if patient is None else lock("patient", patient))

    async def delete_family(self, family: str) -> None:
        """Remove the secrets of a family."""
        found = await self._base.secrets.find({"family": family}, {"_id": 1}, session=self._session).to_list()
        if found:
            await self._base.secrets.bulk_write([DeleteOne({"_id": one["_id"]}) for one in found], session=self._session)

    async def append(self, journal: str, lines: list[bytes]) -> None:
        """Add lines to a journal, numbered on."""
        name = f"journal/{journal}"
        counter = await self._base.counters.find_one({"_id": name}, session=self._session)
        last = counter["value"] if counter else 0
        self._bumped[name] = len(lines)
        made = [{"_id": f"{name}/{n:012}", "journal": journal, "n": n, "line": line} for n, line in enumerate(lines, last + 1)]
        await self._base.journal.insert_many(made, session=self._session)

    async def _flush(self) -> None:
        """Send the rows gathered so far."""
        history, self._history = self._history, []
        resources, self._resources = self._resources, []
        if history:
            await self._base.history.bulk_write(history, session=self._session)
        if resources:
            await self._base.resources.bulk_write(resources, session=self._session)

    async def finish(self) -> None:
        """Send everything that is left, to be committed."""
        await self._flush()
        if not self._written and not self._bumped:
            return
        counted = [UpdateOne({"_id": name}, {"$inc": {"value": by}}, upsert=True) for name, by in self._bumped.items()]
        if counted:
            await self._base.counters.bulk_write(counted, session=self._session)
        locks = [UpdateOne({"_id": id}, {"$inc": {"value": 1}}, upsert=True) for id in sorted(self._locks())]
        if locks:
            await self._base.locks.bulk_write(locks, session=self._session, ordered=False)

    def _locks(self) -> set[str]:
        """The lock documents to touch.  Whoever changes what a lock stands for touches all its slots, who reads it one."""
        changed = {f"{name}:{slot}" for name in self._changed for slot in range(SLOTS)}
        return changed | self._claimed | {f"{name}:{self._slot}" for name in self._read}


def _same_view(made: Any, row: Row) -> bool:
    """Whether the version before had this one's class, release and patients, and so this one's place."""
    return (made["class"], made["release"], tuple(made["patients"])) == (row.class_id, row.release_at, row.patients)


def _relabelled(made: Any, record: IndexedRow) -> docs.Document:
    """A stored version's document with another label; body, time and interaction stay."""
    was = docs.row(made)
    row = msgspec.structs.replace(record.row, body=was.body, updated=was.updated, interaction=was.interaction)
    return docs.document(row, record.entries, made["stored"], made["at"])


def _asked(target: str, params: frozenset[str] | None) -> dict[str | None, docs.Document]:
    """What to look for in entries, by type (None: any)."""
    if params is None:
        return {None: {"v": target}}
    by_type: dict[str, list[str]] = {}
    for one in sorted(params):
        type, _, param = one.partition(".")
        by_type.setdefault(type, []).append(param)
    return {type: {"v": target, "p": {"$in": listed}} for type, listed in by_type.items()}


def _follows(row: Row, version: int) -> None:
    if row.version != version + 1:
        raise Problem("conflict", _CHANGED)
