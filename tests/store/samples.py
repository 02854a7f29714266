"""Rows and sights for the store tests: classes 0 to 3, of which callers are usually admitted to 0 and 1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from fhir_server.search.filters import EVERYTHING, Filter
from fhir_server.search.visibility import Entry, Sight, SortKey, Window
from fhir_server.store import Record, Row, Store

OBS = "Observation"
NOW = 100
SEEN = frozenset({0, 1})


def window(*patients: str, classes: Iterable[int] = SEEN, released: bool = True, where: Filter = EVERYTHING) -> Window:
    return Window(frozenset(patients) if patients else None, frozenset(classes), released, where)


ANYONE = Sight((window(),), NOW)
ALL = Sight((window(classes=range(4), released=False),), NOW)


def sight(*windows: Window, now: int = NOW) -> Sight:
    return Sight(windows, now)


def row(id: str, *patients: str, type: str = OBS, version: int = 1, vclass: int = 0, release_at: int = 0, **more: Any) -> Row:
    body = more.pop("body", f'{{"id":"{id}","v":{version}}}'.encode())
    return Row(type, id, version, version * 10, patients, vclass, release_at, body, **more)


def record(id: str, *patients: str, entries: Iterable[Entry] = (), **more: Any) -> Record:
    return Record(row(id, *patients, **more), tuple(entries))


def token(param: str, code: str, system: str = "s", vclass: int = 0) -> Entry:
    return Entry(param, "token", (system, code), (), vclass)


def date(param: str, lo: int, hi: int | None = None, vclass: int = 0) -> Entry:
    return Entry(param, "date", (lo, lo + 1 if hi is None else hi), (), vclass)


def reference(param: str, target: str, vclass: int = 0) -> Entry:
    return Entry(param, "reference", (target,), (), vclass)


def string(param: str, exact: str, vclass: int = 0) -> Entry:
    return Entry(param, "string", (exact.lower(), exact), (), vclass)


def quantity(param: str, number: float, system: str = "", code: str = "", unit: str = "", vclass: int = 0) -> Entry:
    return Entry(param, "quantity", (number, system, code, unit), (), vclass)


async def put(store: Store, *records: Record) -> None:
    async def job(transaction: Any) -> None:
        for one in records:
            await transaction.put(one)

    await store.write(job)


async def relabel(store: Store, *records: Record) -> None:
    async def job(transaction: Any) -> None:
        for one in records:
            await transaction.relabel(one)

    await store.write(job)


async def drop(store: Store, *ids: str) -> None:
    async def job(transaction: Any) -> None:
        for id in ids:
            current = await transaction.current(OBS, id)
            await transaction.drop(msgspec.structs.replace(current, version=current.version + 1, body=b"", interaction="delete"))

    await store.write(job)


async def found(store: Store, where: Filter, seen: Sight = ANYONE, sort: tuple[SortKey, ...] = (), type: str = OBS) -> list[str]:
    """The ids that ``find`` gives, having checked that ``count`` agrees with it."""
    async with store.snapshot() as snapshot:
        page = await snapshot.find(type, where, seen, sort=sort, limit=1000)
        assert page.next is None
        assert await snapshot.count(type, where, seen) == len(page.rows)
        return [one.id for one in page.rows]
