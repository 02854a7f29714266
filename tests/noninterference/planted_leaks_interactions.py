"""Planted leaks of includes, batches, writes and rows of several people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.consent import decision
from fhir_server.errors import Problem
from fhir_server.interactions import (
    batch,
    conditional_write,
    criteria,
    included,
    provenance_header,
    search,
    search_several,
    validation,
    write,
    write_rights,
)
from fhir_server.interactions.service import Service
from fhir_server.search import query as queries
from fhir_server.search.filters import AllOf, AnyOf, Has, IdIs, RefersTo
from fhir_server.search.visibility import VisibilityClause
from fhir_server.writing import row_labeling
from tests.noninterference.planted_leaks import AnyClass, Patch, leak, of_record, relook, sighted, unlimited

# Includes, $everything and batches


@leak("A01")
def include_follows_references_as_stored(patch: Patch) -> None:
    exact = included.included

    async def collected(view: View, asked: Any, found: Any, base: str) -> Any:
        visibility = await unlimited(view)
        stored = [await view._snapshot.read(seen.type, seen.id, visibility) for seen in found]
        bodies = [msgspec.structs.replace(seen, body=row.body) for seen, row in zip(found, stored, strict=True)]
        other = View(view._snapshot, view.permissions, view.now)
        other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
        return await exact(other if asked.includes else view, asked, bodies, base)

    patch.setattr(search, "included", collected)


@leak("A02")
def an_include_steps_over_hidden_rows(patch: Patch) -> None:
    """It collects through everything that is stored, and then leaves out what is hidden."""
    exact = included.included

    async def collected(view: View, asked: Any, found: Any, base: str) -> Any:
        if not asked.includes and not asked.revincludes:
            return [], False
        visibility = await unlimited(view)
        other = View(view._snapshot, view.permissions, view.now)
        other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
        reached, is_cut = await exact(other, asked, found, base)
        shown = await view.visible_targets(f"{row.type}/{row.id}" for row in reached)
        return [row for row in reached if f"{row.type}/{row.id}" in shown], is_cut

    patch.setattr(search, "included", collected)


def relook_with(patch: Patch, code: str, look: Any, method: str, planted: Any) -> None:
    """Replace a method of the View while requests of one interaction are handled."""

    async def looking(view: View, request: Any, service: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(View, method, planted)
            return await look(view, request, service)

    relook(patch, code, looking)


@leak("A03")
def a_compartment_has_all_that_is_stored_in_it(patch: Patch) -> None:
    relook_with(patch, "search-compartment", search_several.search_compartment, "find", sighted(unlimited)(View.find))


@leak("C01")
def a_search_of_several_types_counts_what_is_stored(patch: Patch) -> None:
    relook_with(patch, "search-system", search_several.search_system, "count", sighted(of_record)(View.count))


@leak("Q12")
def a_compartment_of_a_hidden_row_can_be_searched(patch: Patch) -> None:
    async def as_asked(self: View, type: str, where: Any, sort: Any = ()) -> Any:
        return await self.with_codes(where)

    relook_with(patch, "search-compartment", search_several.search_compartment, "_require_answerable", as_asked)


@leak("A02")
def revinclude_sees_everything(patch: Patch) -> None:
    exact, whole = View.find_included, sighted(unlimited)(View.find_included)

    async def reachable(self: View, type: str, where: Any, limit: int) -> Any:
        return await (exact if isinstance(where, IdIs) else whole)(self, type, where, limit)

    patch.setattr(View, "find_included", reachable)


@leak("A03")
def everything_means_everything(patch: Patch) -> None:
    patch.setattr(View, "find_readable", sighted(unlimited)(View.find_readable))


@leak("A08")
def batch_entries_are_read_by_the_institution(patch: Patch) -> None:
    exact = Permissions.visibility

    async def batched(*given: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(
                View,
                "_visibility",
                lambda self, type, interactions: replace(exact(self.permissions, type, self.now, interactions), clauses=_OPEN),
            )
            return await process_entry(*given)

    process_entry = batch._batch_entry
    patch.setattr(batch, "_batch_entry", batched)


_OPEN = (VisibilityClause(None, AnyClass(), released_only=False),)


@leak("A09")
def search_by_post_is_not_narrowed(patch: Patch) -> None:
    exact = search.search

    async def searching(view: View, request: Any, service: Any) -> Any:
        if request.method == "POST":
            visibility = await of_record(view)
            view._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
        return await exact(view, request, service)

    relook(patch, "search-type", searching)


# Writes that reveal hidden rows


@leak("W01")
def conditional_create_matches_hidden_rows(patch: Patch) -> None:
    exact = criteria.matching

    async def matching(view: View, type: str, condition: str, request: Any, service: Any) -> Any:
        other = View(view._snapshot, view.permissions, view.now)
        visibility = await of_record(view)
        other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
        return await exact(other, type, condition, request, service)

    patch.setattr(criteria, "matching", matching)


@leak("W02")
def a_conditional_update_is_refused_for_a_hidden_match(patch: Patch) -> None:
    exact = conditional_write.update_in

    async def update_in(context: Any, request: Any, service: Any, draft: Any, bundle: Any = None) -> Any:
        view = context.view
        other = View(view._snapshot, view.permissions, view.now)
        visibility = await of_record(view)
        other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
        found = await criteria.all_matching(other, draft.type, criteria.of_url(request), request.now, service, 100)
        seen = await criteria.all_matching(view, draft.type, criteria.of_url(request), request.now, service, 100)
        if len(found) > len(seen):
            raise Problem("precondition", "The criteria match several resources.")
        return await exact(context, request, service, draft, bundle)

    patch.setattr(conditional_write, "update_in", update_in)


@leak("W02")
def the_id_of_a_hidden_row_is_taken(patch: Patch) -> None:
    exact = conditional_write.update_in

    async def update_in(context: Any, request: Any, service: Any, draft: Any, bundle: Any = None) -> Any:
        stored = await context.tx.read_unfiltered(draft.type, draft.id) if draft.id else None
        if stored is not None and await context.view.read_for_write(draft.type, draft.id, "u") is None:
            raise Problem("conflict", "The criteria do not match the resource that has the id in the body.")
        return await exact(context, request, service, draft, bundle)

    patch.setattr(conditional_write, "update_in", update_in)


@leak("W02")
def a_conditional_delete_counts_before_it_refuses(patch: Patch) -> None:
    exact = Service.write_with_view

    async def write_with_view(service: Service, request: Any, audit: Any, job: Any) -> Any:
        async def counted(context: Any) -> Any:
            if request.method == "DELETE" and len(request.path) == 1:
                where = queries.condition(request.path[0], criteria.of_url(request), request.now, service.base)
                if await context.tx.count(request.path[0], where, await unlimited(context.view)) > 1:
                    raise Problem("precondition", "The criteria match several resources.")
            return await job(context)

        return await exact(service, request, audit, counted)

    patch.setattr(Service, "write_with_view", write_with_view)


@leak("W04")
def a_patch_is_applied_to_the_stored_version(patch: Patch) -> None:
    exact = write.current_for_change

    async def current_for_change(context: Any, request: Any) -> Any:
        current = await exact(context, request)
        if current.visible is None or request.method != "PATCH":
            return current
        return current._replace(visible=msgspec.structs.replace(current.visible, body=current.stored.body))

    patch.setattr(write, "current_for_change", current_for_change)


@leak("W04")
def a_patch_in_xml_is_applied_to_the_stored_version(patch: Patch) -> None:
    exact = write.current_for_change

    async def current_for_change(context: Any, request: Any) -> Any:
        current = await exact(context, request)
        if current.visible is None or request.headers.get("content-type") != "application/xml-patch+xml":
            return current
        return current._replace(visible=msgspec.structs.replace(current.visible, body=current.stored.body))

    patch.setattr(write, "current_for_change", current_for_change)


@leak("W04")
def a_patch_of_a_hidden_row_is_tried(patch: Patch) -> None:
    exact = write.current_for_change

    async def current_for_change(context: Any, request: Any) -> Any:
        current = await exact(context, request)
        if request.method == "PATCH" and current.visible is None and current.stored is not None:
            raise Problem("unprocessable", "The patch cannot be done.")
        return current

    patch.setattr(write, "current_for_change", current_for_change)


@leak("W09")
def a_validation_resolves_references_for_the_institution(patch: Patch) -> None:
    exact = validation._unresolved

    async def unresolved(view: View, draft: Any, service: Any) -> Any:
        sight = await unlimited(view)
        other = View(view._snapshot, view.permissions, view.now)
        other._visibility = lambda type, interactions: sight  # type: ignore[method-assign]
        return await exact(other, draft, service)

    patch.setattr(validation, "_unresolved", unresolved)


@leak("W06")
def what_a_provenance_names_need_only_exist(patch: Patch) -> None:
    exact = provenance_header.record

    async def record(context: Any, *given: Any) -> None:
        visibility = await unlimited(context.view)

        async def require_visible(view: View, targets: frozenset[str]) -> None:
            if targets - await view._snapshot.visible(targets, lambda _: visibility):
                raise Problem("unprocessable", "A reference does not resolve.")

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(write_rights, "require_visible", require_visible)
            await exact(context, *given)

    patch.setattr(provenance_header, "record", record)


@leak("W06")
def a_reference_need_only_exist(patch: Patch) -> None:
    exact = View.visible_targets

    async def require(view: View, *args: Any) -> None:
        visibility = await unlimited(view)
        view.visible_targets = lambda targets: view._snapshot.visible(targets, lambda _: visibility)  # type: ignore[method-assign]
        try:
            await checked(view, *args)
        finally:
            view.visible_targets = exact.__get__(view)  # type: ignore[method-assign]

    checked = write_rights.require_visible
    patch.setattr(write_rights, "require_visible", require)


@leak("W03")
def an_update_of_a_hidden_row_is_a_conflict(patch: Patch) -> None:
    exact = write._current

    async def current(context: Any, type: str, id: str, interaction: str) -> Any:
        current = await exact(context, type, id, interaction)
        if current.visible is None and current.stored is not None:
            raise Problem("conflict", "This id is taken.")
        return current

    patch.setattr(write, "_current", current)


@leak("R05")
def optimistic_locking_is_by_the_stored_version(patch: Patch) -> None:
    exact = write._current

    async def current(context: Any, type: str, id: str, interaction: str) -> Any:
        current = await exact(context, type, id, interaction)
        if current.visible is None:
            return current
        return current._replace(visible=msgspec.structs.replace(current.visible, version=current.stored.version))

    patch.setattr(write, "_current", current)


@leak("W05")
def an_update_puts_the_stored_element_where_the_caller_sees_it(patch: Patch) -> None:
    exact = write._written_response

    async def written(context: Any, row: Any, status: int, request: Any, service: Any) -> Any:
        answer = await exact(context, row, status, request, service)
        return msgspec.structs.replace(answer, body=row.body) if answer.body and b"OperationOutcome" not in answer.body else answer

    patch.setattr(write, "_written_response", written)


# Rows of several people, labels and restrictions


@leak("M06")
def being_named_opens_a_row(patch: Patch) -> None:
    exact = Permissions._compile

    def compiled(self: Permissions, type: str, interactions: str) -> tuple[VisibilityClause, ...]:
        clauses = exact(self, type, interactions)
        named = AnyOf(tuple(Has(param, RefersTo(self.names)) for param in ("performer", "asserter")))
        return (*clauses, *(replace(one, patients=None, where=AllOf((one.where, named))) for one in clauses[:1] if self.names))

    patch.setattr(Permissions, "_compile", compiled)


def _unlabelled(patch: Patch, label: str) -> None:
    """Let policy decisions ignore this label."""
    exact = decision.permits
    patch.setattr(decision, "permits", lambda policy, actor, key: exact(policy, actor, replace(key, labels=key.labels - {label})))


@leak("M03")
def rows_of_several_patients_are_each_one_s(patch: Patch) -> None:
    _unlabelled(patch, "MIXED")


@leak("R02")
def results_not_yet_final_are_shown(patch: Patch) -> None:
    _unlabelled(patch, "HELD")


@leak("T14")
def a_release_to_come_counts_as_past(patch: Patch) -> None:
    patch.setattr(Permissions, "released_only", property(lambda self: False))


@leak("S06")
def rows_that_must_name_the_caller_need_not(patch: Patch) -> None:
    patch.setattr(decision, "own_conditions", lambda policy, actor, data: None)


@leak("S06")
def single_rows_restricted_by_the_patient_are_shown(patch: Patch) -> None:
    patch.setattr(Permissions, "_without_denied", lambda self, type, narrowed: narrowed)


@leak("Q05", stored=True)
def index_entries_take_the_class_of_the_row(patch: Patch) -> None:
    patch.setattr(row_labeling, "_class_at", lambda path, elements, row_class: row_class)


@leak("A13", stored=True)
def rows_of_a_sensitive_visit_do_not_inherit(patch: Patch) -> None:
    exact = row_labeling.RowLabeler._label_source

    async def source(self: Any, type: str, id: str) -> Any:
        found = await exact(self, type, id)
        return found and replace(found, key=replace(found.key, labels=frozenset()))

    patch.setattr(row_labeling.RowLabeler, "_label_source", source)


@leak("C08")
def the_plan_is_that_of_the_institution(patch: Patch) -> None:
    patch.setattr(decision, "permits", lambda policy, actor, key: True)
