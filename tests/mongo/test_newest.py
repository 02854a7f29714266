"""The newest rows of a patient: the same answers as by sorting all, at the cost of a page, also while rows are hidden."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.search.filters import EVERYTHING, Filter, Has, OfPatient, TokenIs
from fhir_server.search.rows import SortKey
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store import Store
from fhir_server.store.mongodb import MongoStore, newest, reader, sorting, translate
from fhir_server.store.mongodb.newest import NewestQuery
from fhir_server.store.mongodb.translate import Query
from tests.mongo.command_listener import Listener
from tests.mongo.shared_mongod import fresh_url
from tests.mongo.test_query_plans import members
from tests.properties.random_data import CLASSES, PATIENTS, Chance
from tests.properties.store_comparison import CASES, found_wrong
from tests.store.samples import NOW, OBS, clause, date, put, record, token, visibility
from tests.store.stores import empty_store

NEWEST = (SortKey("when", "date", True),)
TYPES = 8
Fault = Callable[[pytest.MonkeyPatch], None]


def _differences(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the differences from the reference of random searches for the newest rows, by callers who see most rows of some patients."""
    any_filter, any_visibility = Chance.filter, Chance.visibility

    def filter(self: Chance, ids: list[str], depth: int = 3, *, steps: bool = True) -> Filter:
        return any_filter(self, ids, depth, steps=steps) if depth < 3 or self.random() < 0.3 else EVERYTHING

    def visibility(self: Chance, ids: list[str]) -> Visibility:
        classes = frozenset(self.sample(CLASSES, 4))
        released_only = self.random() < 0.5
        several = [VisibilityClause(self.some(PATIENTS, 5), classes, released_only) for _ in range(self.randint(1, 2))]
        return replace(any_visibility(self, ids), clauses=tuple(several)) if self.random() < 0.9 else any_visibility(self, ids)

    monkeypatch.setattr(Chance, "sort", lambda *_: NEWEST)
    monkeypatch.setattr(Chance, "filter", filter)
    monkeypatch.setattr(Chance, "visibility", visibility)

    async def run() -> list[str]:
        store = empty_store("mongodb", folder)
        try:
            return await found_wrong(store, types=TYPES, cases=CASES, seed=16)
        finally:
            await store.close()

    return asyncio.run(run())


def test_newest_rows_are_those_of_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[bool] = []
    right = NewestQuery.documents

    async def counted(self: NewestQuery, *how: Any) -> Any:
        documents = await right(self, *how)
        pages.append(documents is not None)
        return documents

    monkeypatch.setattr(NewestQuery, "documents", counted)
    assert _differences(tmp_path, monkeypatch) == []
    assert len(pages) - sum(pages) > 100 and sum(pages) > 25


def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    async def documents(self: NewestQuery, aggregate: Any, collection: str) -> Any:
        found = await aggregate(self.last_date(collection))
        return await aggregate(self.page(found[0]["k0"])) if found else None

    monkeypatch.setattr(NewestQuery, "documents", documents)


def _only_the_first_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    right = translate.access_paths
    monkeypatch.setattr(newest, "access_paths", lambda *what: tuple(path for path in right(*what) if path.numbers is not None))


def _before_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    right = NewestQuery._has_date

    def excluding(self: NewestQuery, range: Query) -> Query:
        return right(self, {name.replace("lte", "lt"): end for name, end in range.items()})

    monkeypatch.setattr(NewestQuery, "_has_date", excluding)


def _any_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    right = sorting.sort_value
    monkeypatch.setattr(newest, "sort_value", lambda key, classes: right(key, frozenset(range(20))))


@pytest.mark.parametrize("fault", [_short_pages, _only_the_first_patient, _before_the_day, _any_entry])
def test_comparison_detects_faults_of_the_newest_rows(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert _differences(tmp_path, monkeypatch) != []


CALLERS: dict[str, tuple[Filter, Visibility]] = {
    "patient": (EVERYTHING, visibility(clause("p1", classes=(0, 1)))),
    "patient, by code": (Has("code", TokenIs("s", "even")), visibility(clause("p1", classes=(0, 1)))),
    "held rows too": (EVERYTHING, visibility(clause("p1", classes=(0, 1), released=False))),
    "two patients": (EVERYTHING, visibility(clause("p1", "p2", classes=(0, 1)))),
    "anyone's, of one patient": (OfPatient(frozenset({"p1"})), visibility(clause(classes=(0, 1)))),
}


class _Touched:
    """What a store examines for two pages of the newest rows, in a record with so many rows of which all are of these classes."""

    def __init__(self, rows: int, classes: tuple[int, ...], hidden: int = 0) -> None:
        url, listener = fresh_url(), Listener()
        store: Store = MongoStore(url, event_listeners=[listener])
        self.keys: dict[str, int] = {}
        self.documents: dict[str, int] = {}
        self.found: dict[str, list[str]] = {}
        with asyncio.Runner() as runner, MongoClient[dict[str, Any]](url) as client:
            runner.run(_fill(store, rows, classes, hidden))
            for name, (where, seen) in CALLERS.items():
                listener.commands.clear()
                self.found[name] = runner.run(_two_pages(store, where, seen))
                plans = [_explained(client, command) for command in listener.of("find", "aggregate") if "resources" in command.values()]
                self.keys[name] = sum(sum(members(plan, "totalKeysExamined")) for plan in plans)
                self.documents[name] = sum(sum(members(plan, "totalDocsExamined")) for plan in plans)
            runner.run(store.close())


async def _fill(store: Store, rows: int, classes: tuple[int, ...], hidden: int) -> None:
    await put(store, record("other", "p2", entries=(date("when", 5),)))
    for start in range(0, rows, 500):
        numbers = range(start, min(rows, start + 500))
        made = [(n, (date("when", n * 7919 % 9973), token("code", "odd" if n % 2 else "even"))) for n in numbers]
        await put(store, *(record(f"r{n}", "p1", class_id=classes[n % len(classes)], entries=entries) for n, entries in made))
    late = [(n, record(f"h{n}", "p1", class_id=3, entries=(date("when", 10_000 + n, class_id=3),))) for n in range(hidden)]
    for start in range(0, hidden, 500):
        await put(store, *[row for _, row in late[start : start + 500]])


async def _two_pages(store: Store, where: Filter, seen: Visibility) -> list[str]:
    async with store.snapshot() as snapshot:
        page = await snapshot.find(OBS, where, seen, sort=NEWEST, limit=10)
        assert page.next is not None
        second = await snapshot.find(OBS, where, seen, sort=NEWEST, limit=10, after=page.next)
    return [row.id for row in (*page.rows, *second.rows)]


def _explained(client: MongoClient[dict[str, Any]], command: dict[str, Any]) -> Any:
    asked: dict[str, Any] = {
        name: command[name] for name in ("find", "aggregate", "filter", "pipeline", "projection", "sort", "limit") if name in command
    }
    asked |= {"cursor": {}} if "aggregate" in command else {}
    return client.get_default_database().command("explain", asked, verbosity="executionStats")


@pytest.fixture(scope="module")
def short() -> _Touched:
    return _Touched(900, (0, 1))


def test_page_of_the_newest_rows_touches_as_much_in_a_record_ten_times_as_long(short: _Touched) -> None:
    long = _Touched(9000, (0, 1))
    for few, many in ((short.keys, long.keys), (short.documents, long.documents)):
        assert {name: number for name, number in many.items() if number > 1.2 * few[name] + 12} == {}
    assert max(number for name, number in long.documents.items() if name != "patient, by code") < 150


def test_hidden_rows_with_later_dates_are_not_touched(short: _Touched) -> None:
    beside_hidden = _Touched(900, (0, 1), hidden=1000)
    assert beside_hidden.found == short.found
    assert {name: number for name, number in beside_hidden.keys.items() if number > short.keys[name] + 12} == {}
    assert {name: number for name, number in beside_hidden.documents.items() if number > short.documents[name] + 12} == {}


SCOPE = Has("code", TokenIs("s", "even"))
COVERED_BY_A_SCOPE = Visibility((VisibilityClause(frozenset({"p1"}), frozenset({0, 1}), where=SCOPE),), NOW)


@pytest.mark.parametrize("where", [EVERYTHING, SCOPE], ids=["all", "by code"])
def test_rows_outside_of_the_scope_do_not_decide_whether_all_rows_are_sorted(where: Filter, monkeypatch: pytest.MonkeyPatch) -> None:
    full: list[bool] = []
    right = NewestQuery.documents

    async def counted(self: NewestQuery, *how: Any) -> Any:
        documents = await right(self, *how)
        full.append(documents is not None)
        return documents

    monkeypatch.setattr(NewestQuery, "documents", counted)

    async def run(hidden: int) -> list[str]:
        store: Store = MongoStore(fresh_url())
        await put(store, *(record(f"r{n}", "p1", entries=(date("when", n), token("code", "even"))) for n in range(30)))
        for start in range(0, hidden, 300):
            late = [record(f"h{n}", "p1", entries=(date("when", 1000 + n), token("code", "odd"))) for n in range(start, start + 300)]
            await put(store, *late)
        found = await _two_pages(store, where, COVERED_BY_A_SCOPE)
        await store.close()
        return found

    assert asyncio.run(run(0)) == asyncio.run(run(600))
    assert full == [True] * 4


def test_count_of_keys_shows_that_all_rows_are_sorted(short: _Touched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "newest_query", lambda *_: None)
    all_sorted = _Touched(900, (0, 1))
    assert all_sorted.found == short.found
    assert all(number > 10 * short.documents[name] for name, number in all_sorted.documents.items() if name != "patient, by code")


def test_newest_row_is_found_by_the_dates_that_the_caller_sees() -> None:
    async def run() -> list[str]:
        store: Store = MongoStore(fresh_url())
        await put(store, *(record(f"old{n}", "p1", entries=(date("when", n), date("when", 100 + n, class_id=2))) for n in range(5)))
        await put(store, *(record(f"new{n}", "p1", entries=(date("when", 50 + n),)) for n in range(5)))
        await put(store, record("held", "p1", release_at=NOW + 1, entries=(date("when", 60),)))
        async with store.snapshot() as snapshot:
            page = await snapshot.find(OBS, EVERYTHING, visibility(clause("p1")), sort=NEWEST, limit=3)
        await store.close()
        return [row.id for row in page.rows]

    assert asyncio.run(run()) == ["new4", "new3", "new2"]
