"""``references_of`` returns what visible rows refer to, and nothing that hidden rows or hidden elements name."""

from __future__ import annotations

from fhir_server.search.filters import Has, TokenIs
from fhir_server.store import Store
from tests.store.conftest import RunScenario
from tests.store.samples import NOW, OBS, clause, put, record, reference, token, visibility


def test_only_visible_rows_and_elements_show_what_they_refer_to(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        await put(
            store,
            record("shown", "p1", entries=[reference("of", "Medication/a"), reference("by", "Medication/x"), token("code", "c")]),
            record("of-element", "p1", entries=[reference("of", "Medication/b", class_id=2)]),
            record("of-class", "p1", class_id=2, entries=[reference("of", "Medication/c", class_id=2)]),
            record("of-release", "p1", release_at=NOW + 1, entries=[reference("of", "Medication/d")]),
            record("of-other", "p2", entries=[reference("of", "Medication/e")]),
            record("of-both", "p2", "p1", entries=[reference("of", "Medication/f")]),
        )
        async with store.snapshot() as snapshot:
            one = visibility(clause("p1"))
            assert await snapshot.references_of(OBS, "of", one) == {"Medication/a", "Medication/f"}
            assert await snapshot.references_of(OBS, "of", one, frozenset({"Medication/a", "Medication/c"})) == {"Medication/a"}
            assert await snapshot.references_of(OBS, "of", one, frozenset({"Medication/x"})) == frozenset()
            assert await snapshot.references_of(OBS, "nothing", one) == frozenset()
            assert await snapshot.references_of(OBS, "of", visibility()) == frozenset()
            narrowed = visibility(clause("p1", where=Has("code", TokenIs("s", "c"))))
            assert await snapshot.references_of(OBS, "of", narrowed) == {"Medication/a"}
            later = await snapshot.references_of(OBS, "of", visibility(clause("p1"), now=NOW + 1))
            assert later == {"Medication/a", "Medication/d", "Medication/f"}
            anyone = await snapshot.references_of(OBS, "of", visibility(clause()))
            assert anyone == {"Medication/a", "Medication/e", "Medication/f"}

    run(scenario)
