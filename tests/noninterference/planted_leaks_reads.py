"""Planted leaks of reads, versions, the histories of single resources, and of the parts of what is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from fhir_server.access import versions, visible_parts
from fhir_server.access.view import View, not_found
from fhir_server.access.visible_history import NumberedPage, VisibleHistory
from fhir_server.access.visible_versions import VisibleHistoryPage, VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import messages, read, write
from fhir_server.search.filters import EVERYTHING
from fhir_server.store import memory
from tests.noninterference.planted_leaks import Patch, leak, relook, unlimited


def _refusing(patch: Patch, problem: Callable[[str, str], Problem]) -> None:
    exact = View._absent

    async def absent(self: View, type: str, id: str) -> Problem:
        stored = await self._snapshot.read(type, id, await unlimited(self))
        return problem(type, id) if stored else await exact(self, type, id)

    patch.setattr(View, "_absent", absent)


@leak("R01")
def hidden_is_forbidden_rather_than_unknown(patch: Patch) -> None:
    _refusing(patch, lambda type, id: Problem("forbidden", "This caller may not read this resource."))


@leak("S01")
def hidden_is_worded_otherwise(patch: Patch) -> None:
    _refusing(patch, lambda type, id: Problem("not_found", f"{type}/{id} was not found."))


@leak("R01")
def hidden_and_deleted_is_gone(patch: Patch) -> None:
    exact = View._absent

    async def absent(self: View, type: str, id: str) -> Problem:
        newest = await self._snapshot.newest(type, id, await unlimited(self))
        gone = newest and newest.interaction == "delete"
        return Problem("gone", f"{type}/{id} has been deleted.") if gone else await exact(self, type, id)

    patch.setattr(View, "_absent", absent)


@leak("R04")
def the_version_is_the_stored_one(patch: Patch) -> None:
    exact = View._without_hidden_parts

    def projected(self: View, row: Any, *what: Any) -> VisibleVersion:
        seen = exact(self, row, *what)
        body = versions.with_version_meta(seen.body, row.version, seen.updated) if seen.body else seen.body
        return msgspec.structs.replace(seen, version=row.version, body=body)

    patch.setattr(View, "_without_hidden_parts", projected)


@leak("R06")
def the_time_of_change_is_the_stored_one(patch: Patch) -> None:
    exact = View._without_hidden_parts
    patch.setattr(
        View, "_without_hidden_parts", lambda self, row, *what: msgspec.structs.replace(exact(self, row, *what), updated=row.updated)
    )


@leak("R04")
def not_modified_is_judged_by_the_stored_version(patch: Patch) -> None:
    exact = read.read

    async def reading(view: View, request: Any, service: Any) -> Any:
        row = await view._snapshot.read(*request.path[:2], await unlimited(view))
        given = request.headers.get("if-none-match")
        if row is not None and given is not None and f'"{row.version}' in given:
            return messages.Response(304)
        return await exact(view, request, service)

    patch.setattr(read, "read", reading)
    relook(patch, "read", reading)


@leak("R02")
def history_shows_hidden_versions(patch: Patch) -> None:
    async def history(self: View, type: str, id: str, *_: Any) -> VisibleHistoryPage:
        rows = await self._snapshot.versions(type, id, self._visibility(type, "r"))
        if not rows:
            raise not_found(type, id)
        shown = await self._visible_versions((await self._snapshot.versions(type, id, await unlimited(self)))[::-1])
        return VisibleHistoryPage(shown, None, len(shown))

    patch.setattr(View, "history", history)


@leak("R02", stored=True)
def a_label_given_late_is_not_given_to_old_versions(patch: Patch) -> None:
    exact = memory._Transaction.relabel

    async def relabel(self: Any, *records: Any) -> None:
        newest = await self.read_unfiltered(records[-1].row.type, records[-1].row.id)
        await exact(self, *[record for record in records if record.row.version == newest.version])

    patch.setattr(memory._Transaction, "relabel", relabel)


@leak("R02", stored=True)
def a_label_given_late_is_not_given_to_what_was_deleted(patch: Patch) -> None:
    exact = memory._Transaction.referrers_unfiltered

    async def referrers_unfiltered(self: Any, target: str, params: Any = None, limit: int | None = None) -> Any:
        return tuple(row for row in await exact(self, target, params, limit) if row.interaction != "delete")

    patch.setattr(memory._Transaction, "referrers_unfiltered", referrers_unfiltered)


@leak("R02")
def history_counts_versions_that_look_alike(patch: Patch) -> None:
    async def page(self: VisibleHistory, *_: Any) -> NumberedPage | None:
        rows = (await self._snapshot.versions(*self._key, self._visibility))[::-1]
        return NumberedPage([*rows], 1, None, len(rows)) if rows else None

    patch.setattr(VisibleHistory, "page", page)


def _leaving(patch: Patch, kept: Callable[[Any], bool]) -> None:
    """Keep the hidden paths for which ``kept`` returns true."""
    exact = visible_parts.paths_to_remove
    patch.setattr(visible_parts, "paths_to_remove", lambda row, *what: [path for path in exact(row, *what) if not kept(path)])


@leak("R11")
def references_to_hidden_rows_are_left_in(patch: Patch) -> None:
    exact = visible_parts.paths_to_remove
    patch.setattr(
        visible_parts, "paths_to_remove", lambda row, admitted, shown: exact(row, admitted, {one.target for one in row.guarded_references})
    )


@leak("R12")
def tags_and_source_are_left_in(patch: Patch) -> None:
    _leaving(patch, lambda path: path[0] == "meta")


@leak("R10")
def hidden_elements_are_left_in(patch: Patch) -> None:
    _leaving(patch, lambda path: len(path) == 1)


@leak("R15")
def labelled_components_are_left_in(patch: Patch) -> None:
    _leaving(patch, lambda path: path[0] == "component")


@leak("R15")
def conclusions_about_hidden_results_are_left_in(patch: Patch) -> None:
    _leaving(patch, lambda path: path[0] == "conclusion")


@leak("R13")
def new_ids_count_what_is_stored(patch: Patch) -> None:
    exact = write.create_in

    async def create_in(context: Any, request: Any, service: Any, draft: Any, bundle: Any = None) -> Any:
        number = await context.tx.count(draft.type, EVERYTHING, await unlimited(context.view))
        return await exact(context, request, replace(service, new_id=lambda: f"n{number}"), draft, bundle)

    patch.setattr(write, "create_in", create_in)
