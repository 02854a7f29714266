"""``entries_of`` returns index entries of visible rows, and nothing of hidden rows or hidden elements."""

from __future__ import annotations

from typing import Any

from fhir_server.search.filters import EVERYTHING, Filter, Has, RefersToMatch, TokenIs
from fhir_server.store import Store
from tests.store.conftest import RunScenario
from tests.store.samples import NOW, OBS, clause, date, put, record, reference, token, visibility

PARAMS = (("code", "token"), ("date", "date"))


async def entries(snapshot: Any, sight: Any, where: Filter = EVERYTHING, limit: int = 100) -> dict[str, set[Any]]:
    found = await snapshot.entries_of(OBS, where, sight, PARAMS, limit)
    assert len({each.id for each in found}) == len(found)
    assert all(len(set(each.entries)) == len(each.entries) for each in found)
    return {each.id: {(entry.param, entry.value) for entry in each.entries} for each in found}


def test_only_visible_entries_of_visible_rows_are_returned(run: RunScenario) -> None:
    both = {("code", ("s", "a")), ("code", ("t", "b")), ("date", (5, 6))}

    async def scenario(store: Store) -> None:
        await put(
            store,
            record("whole", "p1", entries=[token("code", "a"), token("code", "b", "t"), date("date", 5), token("category", "x")]),
            record("partly", "p1", entries=[token("code", "a", class_id=2), token("code", "b"), date("date", 7, class_id=2)]),
            record("bare", "p1", entries=[reference("of", "Encounter/e")]),
            record("of-class", "p1", class_id=2, entries=[token("code", "a", class_id=2)]),
            record("of-release", "p1", release_at=NOW + 1, entries=[token("code", "a")]),
            record("of-other", "p2", entries=[token("code", "a")]),
            record("of-both", "p2", "p1", entries=[date("date", 1, 4)]),
            record("e", "p1", type="Encounter"),
        )
        async with store.snapshot() as snapshot:
            one = visibility(clause("p1"))
            whole = {"whole": both, "partly": {("code", ("s", "b"))}, "bare": set(), "of-both": {("date", (1, 4))}}
            assert await entries(snapshot, one) == whole
            assert await entries(snapshot, one, Has("code", TokenIs("s", "a"))) == {"whole": both}
            assert await entries(snapshot, one, RefersToMatch("of", "Encounter", EVERYTHING, one)) == {"bare": set()}
            assert await entries(snapshot, one, RefersToMatch("of", "Encounter", EVERYTHING, visibility())) == {}
            assert len(await entries(snapshot, one, limit=3)) == 3
            assert await entries(snapshot, visibility()) == {}
            narrowed = visibility(clause("p1", where=Has("code", TokenIs("t", "b"))), clause("p2", classes={0, 2}))
            assert await entries(snapshot, narrowed) == {"whole": both, "of-other": {("code", ("s", "a"))}, "of-both": {("date", (1, 4))}}
            later = await entries(snapshot, visibility(clause("p1"), now=NOW + 1))
            assert set(later) == {*whole, "of-release"}

    run(scenario)


def test_a_transaction_reads_the_entries_that_it_wrote(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        async def job(transaction: Any) -> Any:
            await transaction.put(record("new", "p1", entries=[token("code", "a")]))
            return await entries(transaction, visibility(clause("p1")))

        assert await store.write(job) == {"new": {("code", ("s", "a"))}}

    run(scenario)
