"""Planted leaks beside the rows themselves: counts by reference, limits and quotas, headers, page links, names of other people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions import everything, preconditions, read, search, write, write_rights
from fhir_server.search.filters import EVERYTHING, AllOf, AnyOf, Has, RefersTo
from fhir_server.search.visibility import VisibilityClause
from tests.noninterference.planted_leaks import Patch, leak, of_record, relook, sighted, unlimited

# Counts, limits and page links


async def _as_asked(self: View, type: str, where: Any, sort: Any = ()) -> Any:
    return where


@leak("Q12")
def a_count_by_reference_asks_before_the_filter(patch: Patch) -> None:
    async def count(self: View, type: str, where: Any) -> int:
        self.permissions.require(type, "s")
        return await self._snapshot.count(type, where, self._visibility(type, "s"))

    patch.setattr(View, "count", count)


@leak("Q12")
def a_search_by_reference_finds_rows_that_refer_to_hidden_ones(patch: Patch) -> None:
    patch.setattr(View, "_require_answerable", _as_asked)


@leak("C09")
def a_page_link_starts_after_a_hidden_row(patch: Patch) -> None:
    exact, whole = View.find, sighted(of_record)(View.find)

    async def find(self: View, type: str, where: Any, **how: Any) -> Any:
        page, stored = await exact(self, type, where, **how), await whole(self, type, where, **how)
        return page._replace(next=stored.next) if page.next is not None and stored.next is not None else page

    patch.setattr(View, "find", find)


@leak("C10")
def a_search_of_many_stored_rows_is_refused(patch: Patch) -> None:
    exact, counted = View.find, sighted(of_record)(View.count)

    async def find(self: View, type: str, where: Any, **how: Any) -> Any:
        if await counted(self, type, EVERYTHING) > 6:
            raise Problem("invalid", "Too many results.")
        return await exact(self, type, where, **how)

    patch.setattr(View, "find", find)


@leak("C11")
def the_last_rows_of_a_record_are_the_last_stored_ones(patch: Patch) -> None:
    """As an operation like $lastn would do: take the last rows first and hide what is left."""
    whole = sighted(of_record)(View.find_readable)

    async def find(self: View, type: str, where: Any, **how: Any) -> Any:
        page = await whole(self, type, where, **how)
        shown = await self.visible_targets(f"{row.type}/{row.id}" for row in page.versions)
        return page._replace(versions=[row for row in page.versions if f"{row.type}/{row.id}" in shown])

    patch.setattr(View, "find_readable", find)


@leak("C05")
def the_self_link_names_the_number_of_stored_rows(patch: Patch) -> None:
    exact, counted = search.page, sighted(of_record)(View.count)

    async def page(view: View, path: str, query: Any, service: Any) -> list[bytes]:
        head, *others = await exact(view, path, query, service)
        stored = sum([await counted(view, type, EVERYTHING) for type in query.conditions])
        return [head.replace(b'"type":"searchset"', b'"type":"searchset","language":"x-%d"' % stored, 1), *others]

    patch.setattr(search, "page", page)


@leak("R16")
def an_answer_says_that_something_was_left_out(patch: Patch) -> None:
    exact, counted = search.search, sighted(of_record)(View.count)

    async def searching(view: View, request: Any, service: Any) -> Any:
        answer = await exact(view, request, service)
        hidden = await counted(view, request.path[0], EVERYTHING) - await view.count(request.path[0], EVERYTHING)
        return (
            msgspec.structs.replace(answer, headers=(*answer.headers, (b"warning", b'199 - "%d removed"' % hidden))) if hidden else answer
        )

    relook(patch, "search-type", searching)


@leak("S08")
def a_header_tells_how_many_rows_were_looked_at(patch: Patch) -> None:
    exact = everything.everything

    async def looking(view: View, request: Any, service: Any) -> Any:
        answer = await exact(view, request, service)
        looked = await view._snapshot.count("Observation", EVERYTHING, await unlimited(view))
        return msgspec.structs.replace(answer, headers=(*answer.headers, (b"server-timing", b"rows;dur=%d" % looked)))

    relook(patch, "operation", looking, "$everything")


@leak("S15")
def a_badge_counts_the_results_that_were_stored(patch: Patch) -> None:
    exact = read.read

    async def reading(view: View, request: Any, service: Any) -> Any:
        answer = await exact(view, request, service)
        stored = await view._snapshot.count("Observation", EVERYTHING, await of_record(view))
        return msgspec.structs.replace(answer, headers=(*answer.headers, (b"x-results", b"%d" % stored)))

    patch.setattr(read, "read", reading)
    relook(patch, "read", reading)


@leak("R06")
def the_length_of_a_head_request_is_the_stored_one(patch: Patch) -> None:
    exact = read.read

    async def reading(view: View, request: Any, service: Any) -> Any:
        answer = await exact(view, request, service)
        row = await view._snapshot.read(*request.path[:2], await unlimited(view))
        return msgspec.structs.replace(answer, headers=(*answer.headers, (b"x-length", b"%d" % len(row.body)))) if row else answer

    patch.setattr(read, "read", reading)
    relook(patch, "read", reading)


# Writes


def _before_create(patch: Patch, check: Any) -> None:
    exact = write.create_in

    async def create_in(context: Any, request: Any, service: Any, draft: Any, bundle: Any = None) -> Any:
        await check(context, draft)
        return await exact(context, request, service, draft, bundle)

    patch.setattr(write, "create_in", create_in)


@leak("W07")
def an_identifier_must_be_unique_in_the_record(patch: Patch) -> None:
    async def check(context: Any, draft: Any) -> None:
        given = {str(one.get("value")).encode() for one in draft.value.get("identifier", ())}
        stored = await context.tx.find(draft.type, EVERYTHING, await unlimited(context.view), limit=1000)
        if any(b'"value":"%s"' % value in row.body for row in stored.rows for value in given):
            raise Problem("conflict", "This identifier is taken.")

    _before_create(patch, check)


@leak("W14")
def a_quota_counts_what_is_stored(patch: Patch) -> None:
    async def check(context: Any, draft: Any) -> None:
        if await context.tx.count(draft.type, EVERYTHING, await unlimited(context.view)) % 2:
            raise Problem("too_large", "The record is full.")

    _before_create(patch, check)


@leak("W09")
def a_refused_reference_is_explained(patch: Patch) -> None:
    exact = write_rights.require_visible

    async def require(view: View, targets: Any) -> None:
        sight = await unlimited(view)
        stored = await view._snapshot.visible(targets, lambda _: sight)
        shown = await view.visible_targets(targets)
        if stored - shown:
            raise Problem("unprocessable", f"The reference {min(stored - shown)} may not be used.")
        await exact(view, targets)

    patch.setattr(write_rights, "require_visible", require)


@leak("R05")
def if_match_on_a_hidden_row_fails_as_a_precondition(patch: Patch) -> None:
    exact = preconditions.require_unchanged

    def required(request: Any, visible: Any) -> None:
        if visible is None and request.headers.get("if-match") is not None:
            raise Problem("precondition", "If-Match does not name the current version.")
        exact(request, visible)

    async def current(context: Any, type: str, id: str, interaction: str) -> Any:
        found = await looked_up(context, type, id, interaction)
        patch.setattr(preconditions, "require_unchanged", required if found.stored is not None else exact)
        return found

    looked_up = write._current
    patch.setattr(write, "_current", current)


# People who are named in rows of others


def _named(patch: Patch, *params: str) -> None:
    """Let rows of any patient be seen by those whom they name in one of these parameters."""
    exact = Permissions._compile

    def compiled(self: Permissions, type: str, interactions: str) -> tuple[VisibilityClause, ...]:
        clauses = exact(self, type, interactions)
        names = self.names | self._patient_references()
        if not names or not clauses:
            return clauses
        named = AnyOf(tuple(Has(param, RefersTo(names)) for param in params))
        return (*clauses, replace(clauses[0], patients=None, where=AllOf((clauses[0].where, named))))

    patch.setattr(Permissions, "_compile", compiled)


@leak("M01")
def a_row_about_another_is_seen_by_its_focus(patch: Patch) -> None:
    _named(patch, "focus")


@leak("M05")
def a_policy_is_seen_by_its_subscriber(patch: Patch) -> None:
    _named(patch, "subscriber", "policy-holder")


@leak("Q11")
def any_row_that_names_the_patient_belongs_to_the_record(patch: Patch) -> None:
    _named(patch, "patient", "subject", "focus", "performer", "subscriber", "participant", "recipient")
