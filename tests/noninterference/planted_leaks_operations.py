"""Planted leaks of the operations that read records."""

from __future__ import annotations

from typing import Any

from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions import closure, docref, everything, health_cards, lastn, patient_match, patient_summary
from fhir_server.search.filters import EVERYTHING
from tests.noninterference.planted_leaks import Patch, leak, of_record, relook, sighted, unlimited


@leak("C11")
def the_newest_of_each_code_are_chosen_before_hidden_ones_are_left_out(patch: Patch) -> None:
    patch.setattr(View, "index_entries", sighted(of_record)(View.index_entries))


@leak("C11")
def hidden_results_join_groups_of_codes(patch: Patch) -> None:
    """A hidden result with two codes makes one group of them; it is no answer itself."""
    exact, whole = View.index_entries, sighted(of_record)(View.index_entries)

    async def entries(self: View, type: str, where: Any, params: Any, limit: int, *more: Any) -> Any:
        seen = {row.id for row in await exact(self, type, where, params, limit, *more)}
        stored = await whole(self, type, where, params, limit, *more)
        return tuple(row if row.id in seen else row._replace(entries=tuple(e for e in row.entries if e.param != "date")) for row in stored)

    patch.setattr(View, "index_entries", entries)


@leak("C11")
def a_total_of_lastn_counts_all_that_matches(patch: Patch) -> None:
    exact, counted = lastn.newest_by_code, sighted(of_record)(View.count)

    async def newest(view: View, type: str, where: Any, most: int, limit: int) -> Any:
        found = list(await exact(view, type, where, most, limit))
        return found[: max(1, len(found) - await counted(view, type, where) % 2)]

    patch.setattr(lastn, "newest_by_code", newest)


@leak("A03")
def a_hidden_encounter_has_a_record(patch: Patch) -> None:
    exact, whole = everything.everything, sighted(unlimited)(View.read)

    async def looking(view: View, request: Any, service: Any) -> Any:
        if request.path[0] == "Encounter":
            view.read = whole.__get__(view)  # type: ignore[method-assign]
        return await exact(view, request, service)

    relook(patch, "operation", looking, "$everything")


@leak("R01")
def the_record_of_a_hidden_encounter_is_refused_otherwise(patch: Patch) -> None:
    exact = everything.everything

    async def looking(view: View, request: Any, service: Any) -> Any:
        stored = len(request.path) == 3 and await view._snapshot.read(*request.path[:2], await unlimited(view))
        if stored and await view.read_for_write(*request.path[:2]) is None:
            raise Problem("forbidden", "This record is not yours.")
        return await exact(view, request, service)

    relook(patch, "operation", looking, "$everything")


@leak("C11")
def a_match_scores_higher_the_more_is_stored(patch: Patch) -> None:
    exact = patient_match._matches

    async def matches(view: View, service: Any, patient: Any, only_certain: bool, count: int) -> Any:
        stored = await view._snapshot.count("Observation", EVERYTHING, await unlimited(view))
        answer = await exact(view, service, patient, only_certain, count)
        answer.parts[0] = answer.parts[0].replace(b'"total":', b'"total":%d' % (1 + stored))
        return answer

    patch.setattr(patient_match, "_matches", matches)


@leak("A05")
def an_empty_section_of_a_summary_says_whether_something_is_hidden(patch: Patch) -> None:
    exact, counted = patient_summary._rows, sighted(of_record)(View.count)

    async def rows(view: View, patient: str, section: Any) -> Any:
        found = await exact(view, patient, section)
        stored = sum([await counted(view, source.type, source.where) for source in section.sources])
        return found if found or not stored or not section.required else [await view.read("Patient", patient)]

    patch.setattr(patient_summary, "_rows", rows)


@leak("A05")
def a_list_of_documents_is_of_what_is_stored(patch: Patch) -> None:
    exact, whole = docref.newest_by_code, sighted(of_record)(View.index_entries)

    async def newest(view: View, *given: Any, **more: Any) -> Any:
        other = View(view._snapshot, view.permissions, view.now)
        other.index_entries = whole.__get__(view)  # type: ignore[method-assign]
        return await exact(other, *given, **more)

    patch.setattr(docref, "newest_by_code", newest)


@leak("A05")
def a_health_card_has_a_vaccination_that_is_stored(patch: Patch) -> None:
    exact, whole = health_cards._doses, sighted(of_record)(View.find_included)

    async def doses(view: View, *given: Any) -> Any:
        other = View(view._snapshot, view.permissions, view.now)
        other.find_included = whole.__get__(view)  # type: ignore[method-assign]
        return await exact(other, *given)

    patch.setattr(health_cards, "_doses", doses)


@leak("Q14")
def closure_tables_know_code_systems_that_are_hidden(patch: Patch) -> None:
    def seeing(exact: Any) -> Any:
        async def answer(view: View, *what: Any) -> Any:
            async def find(type: str, where: Any, limit: int) -> Any:
                page = await view._snapshot.find(type, where, await unlimited(view), limit=limit)
                return await view._visible_versions(page.rows)

            other = View(view._snapshot, view.permissions, view.now)
            other.find_included = find  # type: ignore[method-assign]
            return await exact(other, *what)

        return answer

    for name in ("_change", "_pairs"):
        patch.setattr(closure, name, seeing(getattr(closure, name)))
