"""Rows that a caller does not see, and every shape of search, for tests of what such rows cost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

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
    ReferredBy,
    RefersTo,
    RefersToMatch,
    TextIs,
    TokenIs,
)
from fhir_server.search.rows import Entry, Position, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import IndexedRow, Snapshot
from tests.store.samples import NOW, OBS, clause, record, token, visibility

HIDDEN = 2000
SHOWN = 60
_DAY = 24 * 60 * 60 * 1_000_000

Ask = Callable[[Snapshot], Awaitable[object]]


def entries_of(number: int, class_id: int) -> tuple[Entry, ...]:
    day = number % 200 * _DAY
    return (
        token("code", f"c{number % 3}", class_id=class_id),
        token("identifier", f"i{number}", class_id=class_id),
        Entry("subject", "reference", ("Patient/p1",), (), class_id),
        Entry("encounter", "reference", (f"Encounter/e{number % 5}",), (), class_id),
        Entry("date", "date", (day, day + _DAY), (), class_id),
        Entry("_lastUpdated", "date", (number * 1000, number * 1000 + 1000), (), class_id),
        Entry("value-quantity", "quantity", (float(number % 100), "u", "mg", "mg"), (), class_id),
        Entry("value-string", "string", (f"text {number % 7}", f"Text {number % 7}"), (), class_id),
    )


def hidden_row(number: int) -> IndexedRow:
    """A row that the caller does not see: of another class, not yet released, shared and of another class, or of another patient."""
    if number % 30 == 2:
        subject = Entry("subject", "reference", ("Patient/p9",), (), 1)
        return record(
            f"h{number}", "p9", class_id=1, entries=[entry if entry.param != "subject" else subject for entry in entries_of(number, 1)]
        )
    if number % 3 == 0:
        return record(f"h{number}", "p1", class_id=1, release_at=NOW + 1 + number, entries=entries_of(number, 1))
    if number % 30 == 1:
        hidden = [token("class", code, class_id=2) for code in ("AMB", "HIDDEN")]
        return record(f"h{number}", "p1", type="Encounter", class_id=2, entries=hidden)
    owners = ("p1",) if number % 3 == 1 else ("p0", "p1")
    return record(f"h{number}", *owners, class_id=2, entries=entries_of(number, 2))


def _find(where: Filter, *sort: SortKey, seen: Visibility | None = None, limit: int = 20, type: str = OBS) -> Ask:
    async def ask(snapshot: Snapshot) -> object:
        page = await snapshot.find(type, where, seen or visibility(clause("p1")), sort=sort, limit=limit)
        return [row.id for row in page.rows], page.next

    return ask


def _count(where: Filter) -> Ask:
    return lambda snapshot: snapshot.count(OBS, where, visibility(clause("p1")))


async def _second_page(snapshot: Snapshot) -> object:
    seen = visibility(clause("p1"))
    page = await snapshot.find(OBS, EVERYTHING, seen, limit=5)
    return [row.id for row in (await snapshot.find(OBS, EVERYTHING, seen, limit=5, after=page.next)).rows]


async def _second_sorted_page(snapshot: Snapshot) -> object:
    seen, key = visibility(clause("p1")), SortKey("date", "date", descending=True)
    page = await snapshot.find(OBS, EVERYTHING, seen, sort=(key,), limit=5)
    assert isinstance(page.next, Position)
    return [row.id for row in (await snapshot.find(OBS, EVERYTHING, seen, sort=(key,), limit=5, after=page.next)).rows]


_CODE = Has("code", TokenIs("s", "c1"))
_OTHERS = AllOf((Has("subject", RefersTo(frozenset({"Patient/p9"}))), OfPatient(frozenset({"p9"}))))
_SEEN = visibility(clause("p1"))
_OF_VISITS = RefersToMatch("encounter", "Encounter", Has("class", TokenIs("s", "AMB")), _SEEN)
_WITH_CODE = ReferredBy(OBS, "encounter", _CODE, _SEEN)
SHAPES: dict[str, Ask] = {
    "first page": _find(EVERYTHING),
    "second page": _second_page,
    "second sorted page": _second_sorted_page,
    "patient": _find(OfPatient(frozenset({"p1"}))),
    "subject": _find(Has("subject", RefersTo(frozenset({"Patient/p1"})))),
    "another person's rows": _find(_OTHERS),
    "another person's newest": _find(_OTHERS, SortKey("date", "date", descending=True)),
    "another person's rows of a code": _find(AllOf((_CODE, _OTHERS))),
    "the own and another person's newest": _find(OfPatient(frozenset({"p1", "p9"})), SortKey("date", "date", descending=True)),
    "code": _find(_CODE),
    "code without a system": _find(Has("code", TokenIs(None, "c1"))),
    "any code of a system": _find(Has("code", TokenIs("s", None))),
    "one of several codes": _find(AnyOf((_CODE, Has("code", TokenIs("s", "c2"))))),
    "code not": _find(Not(_CODE)),
    "identifier": _find(Has("identifier", TokenIs("s", "i9"))),
    "several codes and a date": _find(AllOf((_CODE, Has("date", DateIs("ge", 0, _DAY))))),
    "date range": _find(AllOf((Has("date", DateIs("ge", 3 * _DAY, 4 * _DAY)), Has("date", DateIs("lt", 9 * _DAY, 10 * _DAY))))),
    "date missing": _find(Not(Present("date", "date"))),
    "last updated": _find(Has("_lastUpdated", DateIs("ge", 5000, 6000))),
    "quantity": _find(Has("value-quantity", QuantityIs("gt", 40, 40, 40))),
    "string": _find(Has("value-string", TextIs("text 3", "prefix"))),
    "string contains": _find(Has("value-string", TextIs("xt 3", "contains"))),
    "reference": _find(Has("encounter", RefersTo(frozenset({"Encounter/e1"})))),
    "several references": _find(Has("encounter", RefersTo(frozenset({"Encounter/e1", "Encounter/e2"})))),
    "hidden ids": _find(IdIs(frozenset({"h1", "h2", "h3"}))),
    "sorted by date": _find(EVERYTHING, SortKey("date", "date")),
    "sorted by date, newest first": _find(EVERYTHING, SortKey("date", "date", descending=True)),
    "sorted by two keys": _find(_CODE, SortKey("code", "token"), SortKey("date", "date")),
    "narrowed by a scope": _find(EVERYTHING, seen=visibility(clause("p1", where=_CODE))),
    "several patients": _find(EVERYTHING, seen=visibility(clause("p1", "p2"))),
    "code of several patients": _find(_CODE, seen=visibility(clause("p1", "p2"))),
    "chain": _find(_OF_VISITS),
    "chain to a hidden row": _find(RefersToMatch("encounter", "Encounter", Has("class", TokenIs("s", "HIDDEN")), _SEEN)),
    "has": _find(_WITH_CODE, type="Encounter"),
    "has of a chain": _find(ReferredBy(OBS, "encounter", AllOf((_CODE, _OF_VISITS)), _SEEN), type="Encounter"),
    "chain to has": _find(RefersToMatch("encounter", "Encounter", _WITH_CODE, _SEEN)),
    "count of a chain": _count(_OF_VISITS),
    "count": _count(EVERYTHING),
    "count of a code": _count(_CODE),
    "count of another person's rows": _count(_OTHERS),
    "count of a date": _count(Has("date", DateIs("ge", 3 * _DAY, 4 * _DAY))),
    "patients of a code": lambda snapshot: snapshot.patients_of(OBS, _CODE, visibility(clause("p1"))),
    "types of a patient": lambda snapshot: snapshot.types_of_unfiltered(frozenset({"p1"})),
    "read of a hidden id": lambda snapshot: snapshot.read(OBS, "h1", visibility(clause("p1"))),
    "read of an unreleased id": lambda snapshot: snapshot.read(OBS, "h0", visibility(clause("p1"))),
    "history of a hidden id": lambda snapshot: snapshot.versions(OBS, "h1", visibility(clause("p1"))),
    "history of an unreleased id": lambda snapshot: snapshot.versions(OBS, "h0", visibility(clause("p1"))),
}


def batches(hidden: int) -> Iterator[list[IndexedRow]]:
    """Yield the visible rows with so many hidden ones between them.  The first three hidden rows are in every store."""
    shown = [record(f"r{n}", "p1" if n % 4 else "p2", class_id=1, entries=entries_of(n, 1)) for n in range(SHOWN)]
    visits = [record(f"e{n}", "p1", type="Encounter", class_id=1, entries=[token("class", "AMB", class_id=1)]) for n in range(5)]
    yield [*visits, *shown[: SHOWN // 2], *[hidden_row(number) for number in range(3)]]
    for start in range(3, hidden, 250):
        yield [hidden_row(number) for number in range(start, min(start + 250, hidden))]
    yield shown[SHOWN // 2 :]
