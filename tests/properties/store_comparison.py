"""Compares a store with the reference implementation: fills it with random rows and runs random searches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from fhir_server.errors import Problem
from fhir_server.search import match
from fhir_server.search.rows import Position, SearchableRow
from fhir_server.search.visibility import Visibility
from fhir_server.store import IndexedRow, Row, Snapshot, Store
from tests.examples import examples
from tests.properties.random_data import Chain, Chance
from tests.store.stores import empty_store

# Number of random row sets, and of random searches on each.  Fewer find each planted fault, too (test_translation_faults.py).
TYPES, CASES = examples(150, few=60), 100


@dataclass(frozen=True)
class Rows:
    """See :class:`fhir_server.search.match.OtherRows`."""

    rows: tuple[SearchableRow, ...]

    def named(self, name: str) -> SearchableRow | None:
        return next((row for row in self.rows if f"{row.type}/{row.id}" == name), None)

    def of_type(self, type: str) -> Iterable[SearchableRow]:
        return (row for row in self.rows if row.type == type)


async def filled(store: Store, type: str, chance: Chance, most: int = 30) -> tuple[SearchableRow, ...]:
    """Fill a new type with random rows, and overwrite, delete and relabel some of them."""
    chains: dict[str, Chain] = {}
    stored = count()

    def another(id: str, chain: Chain) -> SearchableRow:
        """Return a random version, often with the class, release and patients of an existing version."""
        row, (_, like) = replace(chance.row(type, 0), id=id), chance.choice(chain.versions)
        return replace(row, patients=like.patients, class_id=like.class_id, release_at=like.release_at) if chance.random() < 0.6 else row

    async def change(transaction: Any, id: str, chain: Chain) -> None:
        number, (_, row) = len(chain.versions) + 1, chain.versions[-1]
        chain.deleted = not chain.deleted and chance.random() < 0.2
        if chain.deleted:
            await transaction.delete(_deletion(await transaction.read_unfiltered(type, id)))
        else:
            row = another(id, chain)
            await transaction.put(_record(row, number))
        chain.versions.append((next(stored), row))

    async def relabel(transaction: Any, id: str, chain: Chain) -> None:
        number = chance.randrange(len(chain.versions))
        row = another(id, chain)
        await transaction.relabel(_record(row, number + 1))
        chain.versions[number] = (chain.versions[number][0], row)

    async def job(transaction: Any) -> None:
        for number in range(chance.randint(1, most)):
            row = chance.row(type, number)
            await transaction.put(_record(row, 1))
            chains[row.id] = Chain([(next(stored), row)])
            while chance.random() < 0.4:
                id = chance.choice(list(chains))
                await chance.choice((change, change, change, relabel))(transaction, id, chains[id])

    await store.write(job)
    return tuple(chain.placed() for chain in chains.values() if not chain.deleted)


def _record(row: SearchableRow, version: int) -> IndexedRow:
    return IndexedRow(Row(row.type, row.id, version, 0, row.patients, row.class_id, row.release_at, b"{}"), row.entries)


def _deletion(row: Row) -> Row:
    return Row(row.type, row.id, row.version + 1, 0, row.patients, row.class_id, row.release_at, b"", interaction="delete")


async def differences(snapshot: Snapshot, everything: tuple[SearchableRow, ...], type: str, chance: Chance) -> Iterator[str]:
    """Return the differences between the store and the reference implementation for one random search."""
    rows, others = tuple(row for row in everything if row.type == type), Rows(everything)
    ids = [row.id for row in rows] or ["none"]
    where, visibility, sort, limit = chance.filter(ids), chance.visibility(ids), chance.sort(ids), chance.randint(1, 6)
    asked = f"{where} {visibility} {sort}"
    right = match.search(rows, type, where, visibility, sort=sort, others=others)
    wrong: list[str] = []
    walked, after = [], None
    while True:
        try:
            page = await snapshot.find(type, where, visibility, sort=sort, limit=limit, after=after)
        except Problem as problem:
            wrong.append(f"{problem}: {asked}")
            break
        walked += [row.id for row in page.rows]
        after = page.next
        if after is None or len(walked) > len(rows):
            break
        if after != Position(match.sort_values(sort, visibility, _named(rows, walked[-1]), others), walked[-1]):
            wrong.append(f"position {after}: {asked}")
            break
    if walked != [row.id for row in right]:
        wrong.append(f"rows {walked}, not {[row.id for row in right]}: {asked}")
    known = (await snapshot.find(type, where, visibility, sort=sort, limit=limit)).total
    if known not in (None, len(right)):
        wrong.append(f"total {known}: {asked}")
    if await snapshot.count(type, where, visibility) != len(right):
        wrong.append(f"count: {asked}")
    if await snapshot.patients_of(type, where, visibility) != {patient for row in right for patient in row.patients}:
        wrong.append(f"patients: {asked}")
    return iter(wrong)


async def more_differences(snapshot: Snapshot, everything: tuple[SearchableRow, ...], type: str, chance: Chance) -> Iterator[str]:
    """Return the differences for reads, visible targets, and positions that the store did not return itself."""
    rows, others = tuple(row for row in everything if row.type == type), Rows(everything)
    ids = [row.id for row in rows] or ["none"]
    visibility, sort, where = chance.visibility(ids), chance.sort(ids), chance.filter(ids)
    right = {row.id for row in rows if match.is_visible(visibility, row)}
    wrong: list[str] = []
    if await snapshot.visible([f"{type}/{id}" for id in ids], lambda _: visibility) != {f"{type}/{id}" for id in right}:
        wrong.append(f"visible: {visibility}")
    for n, row in enumerate(rows[:3]):
        snapshot.expect_read(type, row.id, visibility if n else Visibility.unrestricted(9, visibility.now))
        await snapshot.permission_epoch(None)
        if (await snapshot.read(type, row.id, visibility) is not None) != (row.id in right):
            wrong.append(f"read {row.id}: {visibility}")
    after = Position(match.sort_values(sort, visibility, _named(rows, ids[0]), others) if rows else (), ids[0])
    try:
        matched = match.search(rows, type, where, visibility, sort=sort, limit=5, after=after, others=others)
        expected: Any = [row.id for row in matched]
    except Problem as problem:
        expected = str(problem)
    try:
        found: Any = [row.id for row in (await snapshot.find(type, where, visibility, sort=sort, limit=5, after=after)).rows]
    except Problem as problem:
        found = str(problem)
    if found != expected:
        wrong.append(f"after {after}: {found}, not {expected}: {where} {visibility} {sort}")
    return iter(wrong)


def _named(rows: tuple[SearchableRow, ...], id: str) -> SearchableRow:
    return next(row for row in rows if row.id == id)


async def disagreements(scheme: str, folder: Path, types: int = TYPES, *, in_transaction: bool = False) -> list[str]:
    """Return the differences of an empty store of this scheme.  Stops after the first row set with a difference."""
    store = empty_store(scheme, folder)
    try:
        return await found_wrong(store, types=types, cases=CASES, seed=2026, in_transaction=in_transaction)
    finally:
        await store.close()


async def found_wrong(store: Store, *, types: int, cases: int, seed: int, in_transaction: bool = False) -> list[str]:
    """Return the differences that searches of a snapshot show, or of a transaction."""
    chance = Chance(seed)
    wrong: list[str] = []

    async def search(snapshot: Snapshot) -> list[str]:
        found: list[str] = []
        for _ in range(cases):
            found += await differences(snapshot, rows, type, chance)
        for _ in range(cases // 10):
            found += await more_differences(snapshot, rows, type, chance)
        return found

    for number in range(types):
        type = f"T{seed}x{number}"
        chance.types = (type, type + "b")
        rows = await filled(store, type, chance) + await filled(store, type + "b", chance, 12)
        if in_transaction:
            wrong = await store.write(search)
        else:
            async with store.snapshot() as snapshot:
                wrong = await search(snapshot)
        if wrong:
            break
    return wrong
