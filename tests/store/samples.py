"""Rows and visibilities for the store tests.  The classes are 0 to 3; most callers can see 0 and 1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from fhir_server.search.filters import EVERYTHING, Filter
from fhir_server.search.rows import Entry, SortKey
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store import IndexedRow, Row, Store

OBS = "Observation"
NOW = 100
SEEN = frozenset({0, 1})


def clause(*patients: str, classes: Iterable[int] = SEEN, released: bool = True, where: Filter = EVERYTHING) -> VisibilityClause:
    return VisibilityClause(frozenset(patients) if patients else None, frozenset(classes), released, where)


ANYONE = Visibility((clause(),), NOW)
ALL = Visibility.unrestricted(4, NOW)


def visibility(*clauses: VisibilityClause, now: int = NOW) -> Visibility:
    return Visibility(clauses, now)


def row(id: str, *patients: str, type: str = OBS, version: int = 1, class_id: int = 0, release_at: int = 0, **more: Any) -> Row:
    body = more.pop("body", f'{{"id":"{id}","v":{version}}}'.encode())
    return Row(type, id, version, version * 10, patients, class_id, release_at, body, **more)


def record(id: str, *patients: str, entries: Iterable[Entry] = (), **more: Any) -> IndexedRow:
    return IndexedRow(row(id, *patients, **more), tuple(entries))


def token(param: str, code: str, system: str = "s", class_id: int = 0) -> Entry:
    return Entry(param, "token", (system, code), (), class_id)


def date(param: str, lo: int, hi: int | None = None, class_id: int = 0) -> Entry:
    return Entry(param, "date", (lo, lo + 1 if hi is None else hi), (), class_id)


def reference(param: str, target: str, class_id: int = 0) -> Entry:
    return Entry(param, "reference", (target,), (), class_id)


def string(param: str, exact: str, class_id: int = 0) -> Entry:
    return Entry(param, "string", (exact.lower(), exact), (), class_id)


def quantity(param: str, number: float, system: str = "", code: str = "", unit: str = "", class_id: int = 0) -> Entry:
    return Entry(param, "quantity", (number, system, code, unit), (), class_id)


async def put(store: Store, *records: IndexedRow) -> None:
    async def job(transaction: Any) -> None:
        for one in records:
            await transaction.put(one)

    await store.write(job)


async def relabel(store: Store, *records: IndexedRow) -> None:
    async def job(transaction: Any) -> None:
        for one in records:
            await transaction.relabel(one)

    await store.write(job)


async def drop(store: Store, *ids: str) -> None:
    async def job(transaction: Any) -> None:
        for id in ids:
            current = await transaction.read_unfiltered(OBS, id)
            await transaction.delete(msgspec.structs.replace(current, version=current.version + 1, body=b"", interaction="delete"))

    await store.write(job)


async def found(store: Store, where: Filter, seen: Visibility = ANYONE, sort: tuple[SortKey, ...] = (), type: str = OBS) -> list[str]:
    """Return the ids that ``find`` returns, after checking that ``count`` agrees."""
    async with store.snapshot() as snapshot:
        page = await snapshot.find(type, where, seen, sort=sort, limit=1000)
        assert page.next is None
        assert await snapshot.count(type, where, seen) == len(page.rows)
        return [one.id for one in page.rows]


async def in_job(store: Store, method: str, *args: Any, **how: Any) -> Any:
    """Call one method of a transaction that does nothing else."""

    async def job(transaction: Any) -> Any:
        return await getattr(transaction, method)(*args, **how)

    return await store.write(job)
