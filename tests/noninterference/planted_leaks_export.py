"""Planted leaks of exports and imports."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from fhir_server.access.view import View
from fhir_server.interactions import bulk_export, bulk_export_deletions, bulk_export_job, bulk_import_rows, write
from fhir_server.interactions.messages import AuditContext, Request, Response
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.search.filters import EVERYTHING
from tests.noninterference.planted_leaks import Patch, leak, of_record, reroute, unlimited


def _of_record(look: Any) -> Any:
    """Run an export step with the visibility of the whole record instead of the caller's."""

    async def wrapped(view: View, *of: Any, **given: Any) -> Any:
        visibility = await of_record(view)
        other = View(view._snapshot, view.permissions, view.now)
        other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
        return await look(other, *of, **given)

    return wrapped


@leak("A04")
def an_export_runs_as_the_system_and_not_as_who_asked_for_it(patch: Patch) -> None:
    patch.setattr(bulk_export_job, "_list_ids", _of_record(bulk_export_job._list_ids))
    patch.setattr(bulk_export_job, "_versions_at", _of_record(bulk_export_job._versions_at))


@leak("A04")
def deletions_of_hidden_rows_are_exported(patch: Patch) -> None:
    for step in ("ids", "current_at"):
        patch.setattr(bulk_export_deletions, step, _of_record(getattr(bulk_export_deletions, step)))


class _Some(list[Any]):
    """A list that is true even if it is empty."""

    def __bool__(self) -> bool:
        return True


@leak("A04")
def a_manifest_names_a_file_for_every_type_that_was_found_by_the_system(patch: Patch) -> None:
    exact = bulk_export._first

    async def first(rows: Any) -> Any:
        return _Some(await exact(rows))

    patch.setattr(bulk_export_job, "_list_ids", _of_record(bulk_export_job._list_ids))
    patch.setattr(bulk_export, "_first", first)


@leak("C12")
def progress_is_told_in_rows_of_the_record(patch: Patch) -> None:
    async def size(view: View) -> int:
        visibility = await unlimited(view, view.permissions.patients)
        return sum([await view._snapshot.count(type, EVERYTHING, visibility) for type in ("Observation", "Encounter", "Appointment")])

    async def status(request: Request, service: Service, audit: AuditContext) -> Response:
        answer, rows = await bulk_export.status(request, service, audit), await service.read_with_view(request, audit, size)
        return Response(answer.status, answer.body, (*answer.headers, (b"x-progress", b"%d rows" % rows)))

    reroute(patch, lambda row: replace(row, handle=status) if row.shape[:1] == ("$export-status",) and row.method == "GET" else None)


@leak("W06")
def an_imported_row_may_refer_to_hidden_rows(patch: Patch) -> None:
    exact = write.create_in

    async def create_in(context: WriteContext, *given: Any) -> Any:
        visibility = await unlimited(context.view)
        other = View(context.tx, context.view.permissions, context.view.now)
        other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
        return await exact(replace(context, view=other), *given)

    patch.setattr(bulk_import_rows, "write", SimpleNamespace(create_in=create_in, update_in=write.update_in))
