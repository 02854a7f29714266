"""Every store answers random conditions as the reference meaning does, and the comparison notices translators' faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fhir_server.errors import Problem
from fhir_server.search import match
from fhir_server.search.filters import (
    AllOf,
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    Not,
    OfPatient,
    Present,
    QuantityIs,
    RefersTo,
    Test,
    TextIs,
    TokenIs,
)
from fhir_server.search.sight import Entry, Indexed, Position, Sight, SortKey, Window
from fhir_server.store import Record, Row, Snapshot, Store, sqlite_order, sqlite_plan, sqlite_read, sqlite_where, sqlite_write
from fhir_server.store.places import patient_number
from tests.store.stores import SCHEMES, empty_store

TYPES, CASES = 150, 100  # random sets of rows, and random questions to each
FEWER = {"mongodb": 15}  # sets of rows where the others would take minutes; `make test-all` asks for them too
KINDS = ("token", "reference", "string", "date", "quantity")
PARAMS = {
    "token": ("code", "mixed"),
    "reference": ("subject",),
    "string": ("name", "mixed"),
    "date": ("when",),
    "quantity": ("amount",),
}
SYSTEMS, CODES = ("", "s1", "s2"), ("", "a", "b", "c")
TARGETS = ("Patient/p0", "Patient/p1", "urn:x", "http://y")
TEXTS = ("", "a", "b", "ab", "aba", "abb", "é", "\U0010ffff", "\U0010ffffz", "\ud7ff")
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
PATIENTS = ("p0", "p1", "p2", "p3")
CLASSES = range(5)
SORTS = (*((param, kind) for kind in KINDS for param in PARAMS[kind]), ("_id", "token"), ("none", "date"))


class Chance(random.Random):
    """Random values from small vocabularies, so that conditions and rows meet often."""

    def some(self, values: Any, most: int = 3) -> frozenset[Any]:
        return frozenset(self.choices(tuple(values), k=self.randint(0, most)))

    def value(self, kind: str) -> tuple[Any, ...]:
        if kind == "token":
            return self.choice(SYSTEMS), self.choice(CODES)
        if kind == "reference":
            return (self.choice(TARGETS),)
        if kind == "string":
            exact = self.choice(TEXTS)
            return exact.lower(), self.choice((exact, exact.upper()))
        if kind == "date":
            lo = self.randint(0, 8)
            return lo, lo + self.randint(1, 4)
        return self.choice((0, 0.5, 1, 1.5, -1)), self.choice(SYSTEMS), self.choice(("", "a")), self.choice(("", "a"))

    def entry(self) -> Entry:
        kind = self.choice(KINDS)
        return Entry(self.choice(PARAMS[kind]), kind, self.value(kind), (), self.choice(CLASSES))

    def row(self, type: str, number: int) -> Indexed:
        patients = tuple(dict.fromkeys(self.choices(PATIENTS[:3], k=self.choice((0, 1, 1, 1, 2)))))
        entries = tuple(self.entry() for _ in range(self.randint(0, 7)))
        id = f"{self.randint(0, 9)}{number}"
        return Indexed(type, id, patients, self.choice(CLASSES), self.choice((0, 0, 0, 5, 10)), entries)

    def test(self, kind: str) -> Test:
        if kind == "token":
            return TokenIs(self.choice((None, *SYSTEMS, "s9")), self.choice((None, *CODES)))
        if kind == "reference":
            return RefersTo(self.some(TARGETS))
        if kind == "string":
            return TextIs(self.choice(TEXTS), self.choice(("prefix", "exact", "contains")))
        prefix: Any = self.choice(PREFIXES)
        if kind == "date":
            lo = self.randint(0, 8)
            return DateIs(prefix, lo, lo + self.randint(1, 4))
        value = self.choice((0, 0.5, 1))
        system, unit = self.choice(((None, None), (None, None), (None, "a"), ("s1", "a"), ("s2", None), ("", "b"), ("s9", "a")))
        return QuantityIs(prefix, value - self.choice((0, 0.5)), value + self.choice((0, 0.5)), value, system, unit)

    def has(self) -> Has:
        kind = self.choice(KINDS)
        return Has(self.choice((*PARAMS[kind], *PARAMS[kind], "none")), self.test(kind))

    def filter(self, ids: list[str], depth: int = 3) -> Filter:
        sort = self.randint(0, 11 if depth else 6)
        if sort < 5:
            return self.has()
        if sort == 5:
            return Present(self.choice(("code", "mixed", "subject", "name", "when", "amount", "none")))
        if sort == 6:
            return self.choice((IdIs(self.some(ids, 8)), OfPatient(self.some(PATIENTS))))
        if sort < 9:
            return AllOf(tuple(self.filter(ids, depth - 1) for _ in range(self.randint(0, 3))))
        if sort == 9:
            return AnyOf(tuple(self.filter(ids, depth - 1) for _ in range(self.randint(0, 3))))
        if sort == 10:
            return AnyOf(tuple(self.has() for _ in range(self.randint(1, 3))))
        return Not(self.filter(ids, depth - 1))

    def window(self, ids: list[str]) -> Window:
        patients = self.choice((None, frozenset({self.choice(PATIENTS)}), self.some(PATIENTS)))
        classes = frozenset(self.sample(CLASSES, self.choice((0, 2, 3, 4, 5, 5))))
        where = self.filter(ids, 1) if self.random() < 0.25 else AllOf(())
        return Window(patients, classes, self.random() < 0.7, where)

    def sight(self, ids: list[str]) -> Sight:
        return Sight(tuple(self.window(ids) for _ in range(self.choice((0, 1, 1, 1, 1, 2, 3)))), self.choice((0, 5, 7)))

    def sort(self) -> tuple[SortKey, ...]:
        keys = self.sample(SORTS, self.choice((0, 0, 1, 1, 2)))
        return tuple(SortKey(param, kind, self.random() < 0.5) for param, kind in keys)


@dataclass
class Chain:
    """The versions of a row, the current one last: each with a count of all that was stored before it."""

    versions: list[tuple[int, Indexed]]
    deleted: bool = False

    def placed(self) -> Indexed:
        current = self.versions[-1][1]
        number = patient_number(current.patients[0]) if current.patients else 0
        return replace(current, place=(number, min(stored for stored, row in self.versions if self._like(row, current))))

    @staticmethod
    def _like(row: Indexed, current: Indexed) -> bool:
        shared = row.patients == current.patients or set(row.patients) & set(current.patients)
        return bool(shared) and (row.vclass, row.release_at) == (current.vclass, current.release_at)


async def filled(store: Store, type: str, chance: Chance) -> tuple[Indexed, ...]:
    """A type of its own with random rows, some of them written over, deleted and labelled afresh."""
    chains: dict[str, Chain] = {}
    stored = count()

    def another(id: str, chain: Chain) -> Indexed:
        """A random version, often with the class, release and patients of one that is there."""
        row, (_, like) = replace(chance.row(type, 0), id=id), chance.choice(chain.versions)
        return replace(row, patients=like.patients, vclass=like.vclass, release_at=like.release_at) if chance.random() < 0.6 else row

    async def change(transaction: Any, id: str, chain: Chain) -> None:
        number, (_, row) = len(chain.versions) + 1, chain.versions[-1]
        chain.deleted = not chain.deleted and chance.random() < 0.2
        if chain.deleted:
            await transaction.drop(_deletion(await transaction.current(type, id)))
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
        for number in range(chance.randint(1, 30)):
            row = chance.row(type, number)
            await transaction.put(_record(row, 1))
            chains[row.id] = Chain([(next(stored), row)])
            while chance.random() < 0.4:
                id = chance.choice(list(chains))
                await chance.choice((change, change, change, relabel))(transaction, id, chains[id])

    await store.write(job)
    return tuple(chain.placed() for chain in chains.values() if not chain.deleted)


def _record(row: Indexed, version: int) -> Record:
    return Record(Row(row.type, row.id, version, 0, row.patients, row.vclass, row.release_at, b"{}"), row.entries)


def _deletion(row: Row) -> Row:
    return Row(row.type, row.id, row.version + 1, 0, row.patients, row.vclass, row.release_at, b"", interaction="delete")


async def differences(snapshot: Snapshot, rows: tuple[Indexed, ...], type: str, chance: Chance) -> Iterator[str]:
    """What the store answers otherwise than the meaning does, to one random question."""
    ids = [row.id for row in rows] or ["none"]
    where, sight, sort, limit = chance.filter(ids), chance.sight(ids), chance.sort(), chance.randint(1, 6)
    asked = f"{where} {sight} {sort}"
    right = match.select(rows, type, where, sight, sort=sort)
    wrong: list[str] = []
    walked, after = [], None
    while True:
        try:
            page = await snapshot.find(type, where, sight, sort=sort, limit=limit, after=after)
        except Problem as problem:
            wrong.append(f"{problem}: {asked}")
            break
        walked += [row.id for row in page.rows]
        after = page.next
        if after is None or len(walked) > len(rows):
            break
        if after != Position(match.keys(sort, sight, _named(rows, walked[-1])), walked[-1]):
            wrong.append(f"position {after}: {asked}")
            break
    if walked != [row.id for row in right]:
        wrong.append(f"rows {walked}, not {[row.id for row in right]}: {asked}")
    known = (await snapshot.find(type, where, sight, sort=sort, limit=limit)).total
    if known not in (None, len(right)):
        wrong.append(f"total {known}: {asked}")
    if await snapshot.count(type, where, sight) != len(right):
        wrong.append(f"count: {asked}")
    if await snapshot.patients_of(type, where, sight) != {patient for row in right for patient in row.patients}:
        wrong.append(f"patients: {asked}")
    return iter(wrong)


async def more_differences(snapshot: Snapshot, rows: tuple[Indexed, ...], type: str, chance: Chance) -> Iterator[str]:
    """The same for reads, visible targets, and positions that were not given by the store."""
    ids = [row.id for row in rows] or ["none"]
    sight, sort, where = chance.sight(ids), chance.sort(), chance.filter(ids)
    right = {row.id for row in rows if match.admits(sight, row)}
    wrong: list[str] = []
    if await snapshot.visible([f"{type}/{id}" for id in ids], lambda _: sight) != {f"{type}/{id}" for id in right}:
        wrong.append(f"visible: {sight}")
    for row in rows[:3]:
        if (await snapshot.read(type, row.id, sight) is not None) != (row.id in right):
            wrong.append(f"read {row.id}: {sight}")
    after = Position(match.keys(sort, sight, _named(rows, ids[0])) if rows else (), ids[0])
    try:
        expected: Any = [row.id for row in match.select(rows, type, where, sight, sort=sort, limit=5, after=after)]
    except Problem as problem:
        expected = str(problem)
    try:
        found: Any = [row.id for row in (await snapshot.find(type, where, sight, sort=sort, limit=5, after=after)).rows]
    except Problem as problem:
        found = str(problem)
    if found != expected:
        wrong.append(f"after {after}: {found}, not {expected}: {where} {sight} {sort}")
    return iter(wrong)


def _named(rows: tuple[Indexed, ...], id: str) -> Indexed:
    return next(row for row in rows if row.id == id)


async def found_wrong(store: Store, *, types: int, cases: int, seed: int) -> list[str]:
    chance = Chance(seed)
    wrong: list[str] = []
    for number in range(types):
        type = f"T{seed}x{number}"
        rows = await filled(store, type, chance)
        async with store.snapshot() as snapshot:
            for _ in range(cases):
                wrong += await differences(snapshot, rows, type, chance)
            for _ in range(cases // 10):
                wrong += await more_differences(snapshot, rows, type, chance)
        if wrong:
            break
    return wrong


async def _run(scheme: str, folder: Path, types: int = TYPES) -> list[str]:
    store = empty_store(scheme, folder)
    try:
        return await found_wrong(store, types=types, cases=CASES, seed=2026)
    finally:
        await store.close()


def test_sqlite_answers_so_wherever_it_starts_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("_FEW", "_MANY", "_LOTS"):
        monkeypatch.setattr(sqlite_plan, bound, 3)
    assert asyncio.run(_run("sqlite", tmp_path)) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_store_answers_random_conditions_as_the_reference_meaning_does(scheme: str, tmp_path: Path) -> None:
    assert asyncio.run(_run(scheme, tmp_path, FEWER.get(scheme, TYPES))) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", FEWER)
def test_a_slower_store_does_too(scheme: str, tmp_path: Path) -> None:
    assert asyncio.run(_run(scheme, tmp_path)) == []


def rewritten(old: str, new: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A fault in the text of statements."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = sqlite_read.SqliteSnapshot.rows
        patch.setattr(sqlite_read.SqliteSnapshot, "rows", lambda self, sql, args: right(self, sql.replace(old, new), args))

    return plant


def table(name: str, prefix: str, meaning: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """A fault in the meaning of one prefix."""
    return lambda patch: patch.setitem(getattr(sqlite_where, name), prefix, meaning)


def any_for_all(patch: pytest.MonkeyPatch) -> None:
    right = sqlite_where.Meaning.condition

    def wrong(self: Any, filter: Any, classes: Any) -> Any:
        return right(self, AllOf(filter.parts) if isinstance(filter, AnyOf) and filter.parts else filter, classes)

    patch.setattr(sqlite_where.Meaning, "condition", wrong)


def negation_sees_all_classes(patch: pytest.MonkeyPatch) -> None:
    right = sqlite_where.Meaning._negated
    patch.setattr(sqlite_where.Meaning, "_negated", lambda self, part, _: right(self, part, frozenset(CLASSES)))


def sort_sees_all_classes(patch: pytest.MonkeyPatch) -> None:
    right = sqlite_order.sort_value

    def wrong(meaning: Any, key: Any, windows: Any, now: int) -> Any:
        return right(meaning, key, [Window(None, frozenset(CLASSES), False)], now)

    patch.setattr(sqlite_order, "sort_value", wrong)


def windows_share_their_classes(patch: pytest.MonkeyPatch) -> None:
    right = sqlite_plan.merged

    def wrong(windows: tuple[Window, ...]) -> tuple[Window, ...]:
        every = frozenset().union(*(window.classes for window in windows))
        return right(tuple(Window(w.patients, every, w.released, w.where) for w in windows))

    patch.setattr(sqlite_plan, "merged", wrong)


def patient_windows_are_ignored(patch: pytest.MonkeyPatch) -> None:
    right = sqlite_plan.merged
    patch.setattr(sqlite_plan, "merged", lambda windows: right(tuple(Window(None, w.classes, w.released, w.where) for w in windows)))


def release_is_ignored(patch: pytest.MonkeyPatch) -> None:
    right = sqlite_plan.merged
    patch.setattr(sqlite_plan, "merged", lambda windows: right(tuple(Window(w.patients, w.classes, False, w.where) for w in windows)))


def a_row_stands_where_its_first_version_was(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sqlite_write.places, "first", lambda versions: min(stored for _, stored in versions))


def a_row_stands_where_its_last_version_was(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sqlite_write.places, "first", lambda versions: versions[-1][1])


def relabelling_moves_nothing(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, type: int, stored: Any, row: Row, entries: Any) -> None:
        self._replace(stored, row, entries, stored.rid & sqlite_write.SEQUENCE, stored.own)

    patch.setattr(sqlite_write.SqliteTransaction, "_settle", wrong)


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "entry classes are ignored": rewritten("substr(?, x.vclass + 1, 1) = x'01'", "substr(?, 1) IS NOT NULL"),
    "row classes are ignored": rewritten("substr(?, r.vclass + 1, 1) = x'01'", "substr(?, 1) IS NOT NULL"),
    "classes are ignored under Not": negation_sees_all_classes,
    "classes are ignored by sort values": sort_sees_all_classes,
    "one window's classes serve another": windows_share_their_classes,
    "release is ignored": release_is_ignored,
    "release at now is too late": rewritten("r.release_at <= ?", "r.release_at < ?"),
    "patient windows are ignored": patient_windows_are_ignored,
    "only a row's first patient counts": rewritten(" FROM also ", " FROM (SELECT 0 AS patient, 0 AS rid) "),
    "all for any": any_for_all,
    "gt compares the lower end": table("_DATE", "gt", lambda lo, hi: ("x.lo > ?", (hi,))),
    "sa includes overlaps": table("_DATE", "sa", lambda lo, hi: ("x.hi > ?", (hi,))),
    "ge is gt": table("_NUMBER", "ge", lambda lo, hi, value: ("x.number > ?", (value,))),
    "eq includes the end of its range": table("_NUMBER", "eq", lambda lo, hi, value: ("x.number BETWEEN ? AND ?", (lo, hi))),
    "prefix is contains": table("_TEXT", "prefix", lambda value: ("instr(x.folded, ?) > 0", (value,))),
    "exact is folded": table("_TEXT", "exact", lambda value: ("x.folded = ?", (value,))),
    "missing values come first": rewritten("NULLS LAST", "NULLS FIRST"),
    "ties in reverse": rewritten("NULLS LAST, rid", "NULLS LAST, -rid"),
    "a page begins with the last one's end": rewritten(f"rid & {sqlite_write.SEQUENCE} > ?", f"rid & {sqlite_write.SEQUENCE} >= ?"),
    "named patients' rows come by patient": rewritten(f"rid & {sqlite_write.SEQUENCE}", "rid"),
    "a row stands where its first version was stored": a_row_stands_where_its_first_version_was,
    "a row stands where its last version was stored": a_row_stands_where_its_last_version_was,
    "a row that is relabelled stays where it stands": relabelling_moves_nothing,
    "a walked row comes at any of its values": rewritten(" y WHERE ", " y WHERE 0 AND "),
    "least for greatest": rewritten("max(x.", "min(x."),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_catches_a_planted_fault(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    assert asyncio.run(_run("sqlite", tmp_path)) != []
