"""No search scans a whole collection or examines many more documents than its patients or its result have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.search.filters import (
    EVERYTHING,
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
    TextIs,
    TokenIs,
)
from fhir_server.search.rows import Position, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import IndexedRow
from fhir_server.store.mongodb import MongoStore
from tests.mongo.command_listener import Listener
from tests.mongo.shared_mongod import fresh_url
from tests.store.samples import NOW, OBS, clause, date, put, quantity, record, reference, string, token, visibility

PATIENTS, ROWS = 60, 50
FEW = 12  # accepted number of documents examined beyond those needed

CODE = Has("code", TokenIs("s", "c3"))
FILTERS: dict[str, Filter] = {
    "everything": EVERYTHING,
    "code of a system": CODE,
    "code": Has("code", TokenIs(None, "c3")),
    "system": Has("category", TokenIs("s", None)),
    "codes": AnyOf(tuple(Has("code", TokenIs("s", f"c{n}")) for n in range(3, 6))),
    "codes of systems": AnyOf((CODE, Has("code", TokenIs("t", "c4")))),
    "reference": Has("encounter", RefersTo(frozenset({"Encounter/e1"}))),
    "references": Has("encounter", RefersTo(frozenset({"Encounter/e1", "Encounter/e2"}))),
    "prefix": Has("name", TextIs("rare7", "prefix")),
    "exact": Has("name", TextIs("Rare7", "exact")),
    "contains": Has("name", TextIs("are7", "contains")),
    **{f"date {prefix}": Has("date", DateIs(prefix, 1000, 1010)) for prefix in ("eq", "gt", "lt", "ge", "le", "sa", "eb", "ap", "ne")},  # type: ignore[arg-type]
    **{f"number {prefix}": Has("value", QuantityIs(prefix, 6.5, 7.5, 7, "u", "mg")) for prefix in ("eq", "gt", "lt", "ne", "ap")},  # type: ignore[arg-type]
    "present": Present("rare", "token"),
    "missing": Not(Present("code", "token")),
    "not": Not(CODE),
    "ids": IdIs(frozenset({"r1-1", "r1-2", "r2-1"})),
    "patient": OfPatient(frozenset({"p1"})),
    "code and date": AllOf((CODE, Has("date", DateIs("ge", 1010, 1011)))),
    "code or reference": AnyOf((CODE, Has("encounter", RefersTo(frozenset({"Encounter/e1"}))))),
}
SIGHTS: dict[str, Visibility] = {
    "one patient": visibility(clause("p1")),
    "two patients": visibility(clause("p1"), clause("p2", classes={0})),
    "scoped": visibility(clause("p1", where=Has("category", TokenIs("s", "laboratory")))),
    "anyone": visibility(clause()),
}
SORTS: dict[str, tuple[SortKey, ...]] = {
    "as stored": (),
    "by date": (SortKey("date", "date", True),),
    "by code and name": (SortKey("code", "token"), SortKey("name", "string")),
}


def rows() -> Iterator[IndexedRow]:
    for patient in range(PATIENTS):
        for n in range(ROWS):
            yield record(
                f"r{patient}-{n}", f"p{patient}", class_id=n % 8 // 7 * 2,
                entries=[
                    token("code", f"c{n % 10}"), token("category", "laboratory" if n % 2 else "vital-signs"), token("status", "final"),
                    reference("encounter", f"Encounter/e{patient}"), reference("subject", f"Patient/p{patient}"),
                    date("date", 900 + 4 * n, 901 + 4 * n), string("name", f"Rare{patient}"), quantity("value", n / 5, "u", "mg"),
                    *([token("rare", "x")] if patient == 1 and n == 3 else []),
                ],
            )  # fmt: skip
    yield record("shared", "p9", "p1", entries=[token("code", "c3")])
    yield record("known", "p3", entries=[token("identifier", "i1", "urn:i")])


class Explained:
    """A filled store.  The commands of its searches are explained as they were sent."""

    def __init__(self, url: str) -> None:
        self.listener = Listener()
        self.runner = asyncio.Runner()
        self.store = MongoStore(url, event_listeners=[self.listener])
        self.client: MongoClient[dict[str, Any]] = MongoClient(url)
        self.runner.run(put(self.store, *rows()))

    def close(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        self.client.close()

    def search(
        self, type: str, where: Filter, seen: Visibility, sort: tuple[SortKey, ...], after: Position | None = None
    ) -> tuple[Any, int]:
        async def job() -> tuple[Any, int]:
            async with self.store.snapshot() as snapshot:
                counted = await snapshot.count(type, where, seen)
                await snapshot.patients_of(type, where, seen)
                return await snapshot.find(type, where, seen, sort=sort, limit=10, after=after), counted

        self.listener.commands.clear()
        return self.runner.run(job())

    def plans(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Return each query of the last search with its executed plan."""
        for command in self.listener.of("find", "aggregate"):
            if next(iter(command.values())) in ("resources", "history"):
                left_out = (
                    *("lsid", "$db", "$clusterTime", "readConcern", "$readPreference", "maxTimeMS"),
                    *("txnNumber", "startTransaction", "autocommit"),
                )
                asked = {name: value for name, value in command.items() if name not in left_out}
                yield command, self.client.get_default_database().command("explain", asked, verbosity="executionStats")


@pytest.fixture(scope="module")
def explained() -> Iterator[Explained]:
    made = Explained(fresh_url())
    yield made
    made.close()


def members(plan: Any, name: str) -> Iterator[Any]:
    """Return every value of this member at any depth, except in rejected plans."""
    if isinstance(plan, dict):
        for member, value in plan.items():
            if member == name:
                yield value
            if member not in ("allPlansExecution", "rejectedPlans"):
                yield from members(value, name)
    elif isinstance(plan, list):
        for one in plan:
            yield from members(one, name)


def examined(plan: dict[str, Any]) -> int:
    return sum(members(plan, "totalDocsExamined"))


def scans(plan: dict[str, Any]) -> bool:
    return "COLLSCAN" in set(members(plan, "stage"))


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("seen", SIGHTS)
@pytest.mark.parametrize("where", FILTERS)
def test_search_examines_only_its_patients_or_result_documents(explained: Explained, where: str, seen: str, sort: str) -> None:
    page, counted = explained.search(OBS, FILTERS[where], SIGHTS[seen], SORTS[sort])
    plans = list(explained.plans())
    assert len(plans) >= 3
    # A search within patients may examine all of their rows.  A search over all patients may examine the rows that the index lists
    # for the value.  If there are several values, a row is fetched twice: to test it, and to compare it with the others.
    own = {"one patient": ROWS, "two patients": 2 * ROWS, "scoped": ROWS}.get(seen, 0)
    bound = own + FEW if own else max(counted, REACH.get(where, 0)) * 5 // 4 * 2 + FEW
    for command, plan in plans:
        assert not scans(plan), (command, plan)
        if own or where not in WIDE:
            assert examined(plan) <= bound, (bound, examined(plan), command)
    if page.next:
        explained.search(OBS, FILTERS[where], SIGHTS[seen], SORTS[sort], page.next)
        for command, plan in explained.plans():
            assert not scans(plan), (command, plan)
            if own:
                assert examined(plan) <= bound, (bound, examined(plan), command)


# number of rows with one of the codes, which the index selects
REACH = {"code and date": PATIENTS * ROWS // 10, "codes of systems": PATIENTS * ROWS // 5}
# Over all patients, no index selects the rows for these conditions.  They read all rows of the type or of the parameter.
WIDE = {"missing", "not", "contains", "date ne", "date ap", "number ne"}


@pytest.mark.parametrize("where", ["code of a system", "reference"])
def test_value_search_stays_within_patient_and_needs_no_sort(explained: Explained, where: str) -> None:
    wanted, everybody = FILTERS[where], visibility(clause())
    found, _ = explained.search(OBS, AllOf((wanted, OfPatient(frozenset({"p1"})))), SIGHTS["one patient"], ())
    for command, plan in explained.plans():
        if next(iter(command)) == "find":
            assert examined(plan) <= ROWS, command
    assert found.rows
    explained.search(OBS, wanted, everybody, ())
    for command, plan in explained.plans():
        if next(iter(command)) == "find" and command.get("limit"):
            assert "SORT" not in set(members(plan["queryPlanner"]["winningPlan"], "stage")), plan["queryPlanner"]["winningPlan"]


def test_reads_of_versions_targets_and_referrers_scan_nothing(explained: Explained) -> None:
    async def job() -> None:
        async with explained.store.snapshot() as snapshot:
            assert await snapshot.read(OBS, "r1-1", SIGHTS["scoped"])
            assert await snapshot.visible([f"{OBS}/r1-1", f"{OBS}/r1-2", "Patient/none"], lambda _: SIGHTS["scoped"])
            assert await snapshot.versions(OBS, "r1-1", SIGHTS["one patient"])

        async def referring(transaction: Any) -> None:
            assert len(await transaction.referrers_unfiltered("Encounter/e1")) == ROWS
            assert len(await transaction.referrers_unfiltered("Encounter/e1", frozenset({f"{OBS}.encounter"}))) == ROWS

        await explained.store.write(referring)

    explained.listener.commands.clear()
    explained.runner.run(job())
    plans = list(explained.plans())
    assert len(plans) >= 7
    for command, plan in plans:
        assert not scans(plan), (command, plan)
        assert examined(plan) <= ROWS + 1, command


def test_patient_types_are_read_from_an_index_only(explained: Explained) -> None:
    async def job(*patients: str) -> frozenset[str]:
        async with explained.store.snapshot() as snapshot:
            return await snapshot.types_of_unfiltered(frozenset(patients))

    for patients, types in ((("p1",), {OBS}), (("p1", "p2", "never"), {OBS}), (("never",), set())):
        explained.listener.commands.clear()
        assert explained.runner.run(job(*patients)) == types
        plans = list(explained.plans())
        assert len(plans) == 1
        for command, plan in plans:
            assert not scans(plan) and examined(plan) == 0, (command, plan)


def test_conditional_create_examines_only_matching_documents(explained: Explained) -> None:
    async def job(transaction: Any) -> int:
        ids = [Has("identifier", TokenIs("urn:i", code)) for code in ("i1", "i2")]
        return sum([len((await transaction.find(OBS, where, SIGHTS["anyone"], limit=2)).rows) for where in ids])

    explained.listener.commands.clear()
    assert explained.runner.run(explained.store.write(job)) == 1
    plans = list(explained.plans())
    assert len(plans) == 2
    for command, plan in plans:
        assert not scans(plan) and examined(plan) <= 1, (command, plan)


def test_plan_check_detects_a_collection_scan(explained: Explained) -> None:
    asked = {"find": "resources", "filter": {"body": NOW}}
    plan = explained.client.get_default_database().command("explain", asked, verbosity="executionStats")
    assert scans(plan) and examined(plan) == PATIENTS * ROWS + 2
