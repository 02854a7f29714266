"""Planted leaks of totals, order, pages and search conditions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fhir_server.access import stored_terminology, versions
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import paged_parameters, search
from fhir_server.search import hidden_references, looked_up_steps, match, words
from fhir_server.search.cursors import PageLink
from fhir_server.search.filters import EVERYTHING, Has, NearTo, Not, Present, ReferredBy, RefersToMatch, WordIs
from fhir_server.search.rows import Position
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store import row_order
from fhir_server.store.conditions import conjuncts
from tests.noninterference.planted_leaks import AnyClass, Patch, leak, of_record, sighted, unlimited

# Totals, order and pages


@leak("C01")
def the_total_counts_the_record(patch: Patch) -> None:
    counted = sighted(of_record)(View.count)

    async def total(view: View, asked: Any, service: Any, known: int | None) -> int | None:
        return None if asked.total == "none" else sum([int(await counted(view, type, where)) for type, where in asked.conditions.items()])

    patch.setattr(search, "_total", total)


@leak("C01")
def an_estimated_total_is_the_store_s_own(patch: Patch) -> None:
    exact, counted = search._total, sighted(unlimited)(View.count)

    async def total(view: View, asked: Any, service: Any, known: int | None) -> int | None:
        if asked.total != "estimate":
            return await exact(view, asked, service, known)
        return sum([int(await counted(view, type, EVERYTHING)) for type in asked.conditions])

    patch.setattr(search, "_total", total)


@leak("C02")
def a_summary_of_counts_counts_the_record(patch: Patch) -> None:
    patch.setattr(View, "count", sighted(of_record)(View.count))


@leak("C03")
def hidden_rows_are_taken_off_a_page_after_it_was_cut(patch: Patch) -> None:
    whole = sighted(of_record)(View.find)

    async def find(self: View, type: str, where: Any, **how: Any) -> Any:
        page = await whole(self, type, where, **how)
        shown = await self.visible_targets(f"{row.type}/{row.id}" for row in page.versions)
        return page._replace(versions=[row for row in page.versions if f"{row.type}/{row.id}" in shown])

    patch.setattr(View, "find", find)


@leak("C04")
def a_next_link_promises_hidden_rows(patch: Patch) -> None:
    exact, counted = View.find, sighted(of_record)(View.count)

    async def find(self: View, type: str, where: Any, **how: Any) -> Any:
        page = await exact(self, type, where, **how)
        rows = page.versions
        if page.next is None and rows and how.get("after") is None and await counted(self, type, where) > len(rows):
            return page._replace(next=Position(tuple(None for _ in how.get("sort", ())), rows[-1].id))
        return page

    patch.setattr(View, "find", find)


@leak("C05")
def a_previous_link_leads_over_what_is_stored(patch: Patch) -> None:
    exact, counted = search.page, sighted(of_record)(View.count)

    async def page(view: View, path: str, query: Any, service: Any) -> list[bytes]:
        parts = await exact(view, path, query, service)
        stored = sum([int(await counted(view, type, where)) for type, where in query.conditions.items()])
        return [part.replace(b'"relation":"previous","url":"', b'"relation":"previous","url":"%d' % stored) for part in parts]

    patch.setattr(search, "page", page)


@leak("C06")
def sort_keys_come_from_hidden_elements_too(patch: Patch) -> None:
    def values(sort: Any, visibility: Any, row: Any, others: Any = None) -> tuple[Any, ...]:
        return tuple(match._sort_value(key, row, AnyClass(), others) for key in sort)

    patch.setattr(match, "sort_values", values)


@leak("C06")
def a_chained_sort_key_leads_to_hidden_rows(patch: Patch) -> None:
    _steps_that_see(patch, "_values_through")


@leak("C06")
def rows_of_several_patients_stand_with_the_first_of_them(patch: Patch) -> None:
    patch.setattr(Visibility, "limited_to_patients", property(lambda self: False))


@leak("C06")
def a_row_stands_where_its_first_version_was_stored(patch: Patch) -> None:
    patch.setattr(row_order, "first_stored", lambda versions: versions[0][1])


@leak("C06")
def a_row_stands_where_its_newest_version_was_stored(patch: Patch) -> None:
    patch.setattr(row_order, "first_stored", lambda versions: versions[-1][1])


@leak("C08")
def a_page_link_is_bound_to_what_is_hidden(patch: Patch) -> None:
    exact = search.binding

    def binding(view: View, *args: Any) -> bytes:
        return (
            exact(view, *args)
            + repr(sorted((data, sorted(numbers)) for data, numbers in view.permissions.classes.unconditional.items())).encode()
        )

    patch.setattr(search, "binding", binding)
    patch.setattr(paged_parameters, "binding", binding)


@leak("C09")
def a_page_link_keeps_the_total_of_the_record(patch: Patch) -> None:
    exact, second, counted, stored = search._total, PageLink.second, sighted(of_record)(View.count), [0]

    async def total(view: View, asked: Any, service: Any, known: int | None) -> int | None:
        stored[0] = sum([int(await counted(view, type, where)) for type, where in asked.conditions.items()])
        return await exact(view, asked, service, known)

    patch.setattr(search, "_total", total)
    patch.setattr(PageLink, "second", staticmethod(lambda end, total: second(end, None if total is None else stored[0])))


# Search conditions


def _matching(patch: Patch, kinds: tuple[type, ...]) -> None:
    """Let conditions of these kinds match hidden entries too."""
    exact = match.matches

    def matches(filter: Any, row: Any, classes: Any, others: Any = None) -> bool:
        return exact(filter, row, AnyClass() if isinstance(filter, kinds) else classes, others)

    patch.setattr(match, "matches", matches)


def _terminology_that_sees(patch: Patch, *types: str) -> None:
    """Let terminology be that of the institution for these types."""

    def terminology(self: View) -> Any:
        async def find(type: str, where: Any, limit: int) -> list[VisibleVersion]:
            if type not in types:
                return await self.find_included(type, where, limit)
            page = await self._snapshot.find(type, where, await unlimited(self), limit=limit)
            return await self._visible_versions(page.rows)

        return stored_terminology.terminology_of(find)

    patch.setattr(View, "terminology", property(terminology))


@leak("Q14")
def a_search_knows_value_sets_that_are_hidden(patch: Patch) -> None:
    _terminology_that_sees(patch, "ValueSet")


@leak("Q14")
def hierarchies_and_maps_that_are_hidden_are_known(patch: Patch) -> None:
    _terminology_that_sees(patch, "CodeSystem", "ConceptMap")


@leak("Q05")
def a_hidden_element_can_be_searched(patch: Patch) -> None:
    _matching(patch, (Has,))


@leak("Q04")
def missing_looks_at_hidden_elements(patch: Patch) -> None:
    _matching(patch, (Present,))


@leak("Q04")
def negation_looks_at_hidden_elements(patch: Patch) -> None:
    _matching(patch, (Not,))


@leak("Q06")
def words_are_looked_for_in_hidden_parts_too(patch: Patch) -> None:
    exact = match.matches

    def matches(filter: Any, row: Any, classes: Any, others: Any = None) -> bool:
        is_word = isinstance(filter, Has) and isinstance(filter.predicate, WordIs)
        return exact(filter, row, AnyClass() if is_word else classes, others)

    patch.setattr(match, "matches", matches)


@leak("Q06", stored=True)
def all_words_are_those_of_the_row(patch: Patch) -> None:
    exact = words.entries
    patch.setattr(words, "entries", lambda type, resource, apart=(): exact(type, resource))


@leak("Q06")
def places_nearby_are_those_of_the_store(patch: Patch) -> None:
    exact = View.find

    async def find(self: View, type: str, where: Any, **given: Any) -> Any:
        other = View(self._snapshot, self.permissions, self.now)
        if any(isinstance(part, Has) and isinstance(part.predicate, NearTo) for part in conjuncts(where)):
            visibility = await unlimited(self)
            other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
        return await exact(other, type, where, **given)

    patch.setattr(View, "find", find)


def _steps_that_see(patch: Patch, function: str) -> None:
    """Let this kind of step lead to hidden rows too."""
    exact = getattr(match, function)
    seen = Visibility((VisibilityClause(None, AnyClass(), released_only=False),))

    def following(step: Any, *what: Any) -> Any:
        return exact(replace(step, visibility=seen), *what)

    patch.setattr(match, function, following)


@leak("Q02")
def chains_lead_to_hidden_rows(patch: Patch) -> None:
    _steps_that_see(patch, "_names_match")


@leak("Q02")
def a_chain_by_canonical_url_leads_to_hidden_rows(patch: Patch) -> None:
    exact = looked_up_steps.rows
    seen = Visibility((VisibilityClause(None, AnyClass(), released_only=False),))
    patch.setattr(looked_up_steps, "rows", lambda step, *what: exact(replace(step, visibility=seen), *what))


@leak("Q03")
def has_looks_at_hidden_rows(patch: Patch) -> None:
    _steps_that_see(patch, "_refers_and_matches")


@leak("Q02")
def steps_see_as_much_of_a_row_as_the_search_does_of_its_own_type(patch: Patch) -> None:
    exact = View._require_answerable

    async def answerable(self: View, type: str, where: Any, *how: Any) -> Any:
        other = View(self._snapshot, self.permissions, self.now)
        other._visibility = lambda _, interactions: self._visibility(type, interactions)  # type: ignore[method-assign]
        return await exact(other, type, where, *how)

    patch.setattr(View, "_require_answerable", answerable)


@leak("Q02")
def references_in_steps_match_hidden_rows(patch: Patch) -> None:
    for name, outermost in (("targets", lambda where: ()), ("limit_to_visible", lambda where, visible: where)):
        exact = getattr(hidden_references, name)

        def skipping(where: Any, *visible: Any, exact: Any = exact, outermost: Any = outermost) -> Any:
            return outermost(where, *visible) if isinstance(where, RefersToMatch | ReferredBy) else exact(where, *visible)

        patch.setattr(hidden_references, name, skipping)


@leak("Q01")
def a_search_that_finds_nothing_looks_again_without_sight(patch: Patch) -> None:
    exact, counted = View.find, sighted(of_record)(View.count)

    async def find(self: View, type: str, where: Any, **how: Any) -> Any:
        found = await exact(self, type, where, **how)
        if not found[0] and await counted(self, type, where):
            raise Problem("forbidden", "The search matches resources that may not be shown.")
        return found

    patch.setattr(View, "find", find)


@leak("Q08", stored=True)
def last_updated_is_the_stored_one(patch: Patch) -> None:
    patch.setattr(versions, "last_updated_entries", lambda row: (versions.last_updated_entry(row.updated, row.class_id),))
