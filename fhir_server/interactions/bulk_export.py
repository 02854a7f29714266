"""``$export`` of the system, of all patients or of a Group (https://hl7.org/fhir/uv/bulkdata/STU2/export.html).

An export contains exactly the resources that the caller could find by search.  Its status and files are available only to
the client, person and patient context that started it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from fhir_server import budget
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.clock import http_date, instant_text
from fhir_server.errors import Issue, Problem, outcome
from fhir_server.interactions import bulk_export_deletions, bulk_export_job, bulk_export_request, preconditions
from fhir_server.interactions.bulk_export_job import Job
from fhir_server.interactions.bulk_export_request import ExportRequest
from fhir_server.interactions.messages import JSON, NDJSON, PLAIN_JSON, AuditContext, Request, Response, format_query
from fhir_server.interactions.owned_jobs import owner
from fhir_server.interactions.service import Service
from fhir_server.interactions.subset import Shape, subset
from fhir_server.search.result_parameters import ResultParameters

Lines = Callable[[list[VisibleVersion]], Awaitable[bytes]]
"""The lines of a file for some versions."""

_ACCEPTED = outcome((Issue("informational", "The export has been accepted.", severity="information"),))


async def kick_off(request: Request, service: Service, audit: AuditContext) -> Response:
    """Start an export: 202, with the status URL in ``Content-Location``.

    Raises Problem ``invalid``, ``forbidden``, ``not_found`` or ``too_many``.
    """
    await service.authenticate(request, audit)
    if not request.prefers_async:
        raise Problem("invalid", "$export requires the header Prefer: respond-async.")
    preconditions.require_only(request)
    export_request = bulk_export_request.parse(request, service.base)
    job = await service.read_with_view(
        request, audit, partial(_create_job, request=request, service=service, export_request=export_request)
    )
    id = service.new_id()
    await bulk_export_job.JOBS.add(service.store.key_values, id, job)
    location = f"{service.base}/$export-status/{id}"
    return Response(202, _ACCEPTED, ((b"content-type", JSON), (b"content-location", location.encode())))


async def _create_job(view: View, request: Request, service: Service, export_request: ExportRequest) -> Job:
    types = export_request.type_names(view)
    for type in types:
        if type in export_request.searches:
            view.permissions.require(type, "s")
        await export_request.condition(view, type, service.base, service.policy.timezone)
    if export_request.level == "group":
        await view.read("Group", export_request.group)
    url = f"{service.base}/{'/'.join(request.path)}" + (f"?{format_query(request.query)}" if request.query else "")
    deletions = tuple([bulk_export_deletions.part_of(type) for type in types]) if export_request.since else ()
    return Job(owner(view.permissions), url, view.now, export_request, (*types, *deletions))


async def status(request: Request, service: Service, audit: AuditContext) -> Response:
    """202 while resources are collected.  Then the manifest, with a file for each type that has visible resources or deletions."""
    id = request.path[1]
    job = await _find_own_job(request, service, audit)
    job = await bulk_export_job.collect_next_pages(service, request, audit, id, job)
    if job.remaining:
        return Response(202, headers=((b"retry-after", b"1"), (b"x-progress", b"in progress")))
    files = [part for part in job.pages if await _first(bulk_export_job.contents(service, request, audit, id, job, part))]
    deletions = [part for part in files if bulk_export_deletions.is_deletions(part)]
    resources = [part for part in files if part not in deletions]
    manifest = {
        "transactionTime": instant_text(job.started),
        "request": job.request,
        "requiresAccessToken": True,
        "output": [{"type": type, "url": _file_url(service, id, type)} for type in resources],
        "deleted": [{"type": "Bundle", "url": _file_url(service, id, part)} for part in deletions],
        "error": [],
    }
    headers = ((b"content-type", PLAIN_JSON), (b"expires", http_date(job.expires).encode()))
    return Response(200, json.dumps(manifest, separators=(",", ":")).encode(), headers)


def _file_url(service: Service, id: str, part: str) -> str:
    return f"{service.base}/$export-file/{id}/{part}.ndjson"


async def cancel(request: Request, service: Service, audit: AuditContext) -> Response:
    """Delete an export, complete or not: 202.  Its URLs return 404 from then on."""
    await bulk_export_job.delete(service, request.path[1], await _owner(request, service, audit), request.now)
    return Response(202)


async def file(request: Request, service: Service, audit: AuditContext) -> Response:
    """The resources of one type, one per line, or its deletions, in Bundles.  Permissions are checked again for each part that is sent."""
    id, name = request.path[1:]
    job = await _find_own_job(request, service, audit)
    part = name.removesuffix(".ndjson")
    pages = bulk_export_job.contents(service, request, audit, id, job, part)
    first = await _first(pages)
    if not first:
        raise Problem("not_found", "There is no such export file.")
    if bulk_export_deletions.is_deletions(part):
        text: Lines = _deletion_lines
    else:
        text = partial(_resource_lines, shape=ResultParameters((), elements=job.export_request.elements_of(part)))
    return Response(200, headers=((b"content-type", NDJSON),), stream=_lines(first, pages, text))


async def _find_own_job(request: Request, service: Service, audit: AuditContext) -> Job:
    of = await _owner(request, service, audit)
    return (await bulk_export_job.JOBS.find(service.store.key_values, request.path[1], of, request.now))[0]


async def _owner(request: Request, service: Service, audit: AuditContext) -> str:
    async def caller(view: View) -> str:
        preconditions.require_only(request)
        return owner(view.permissions)

    return await service.read_with_view(request, audit, caller)


async def _first(pages: AsyncIterator[list[VisibleVersion]]) -> list[VisibleVersion]:
    return await anext(pages, [])


async def _lines(first: list[VisibleVersion], rest: AsyncIterator[list[VisibleVersion]], text: Lines) -> AsyncIterator[bytes]:
    yield await text(first)
    async for versions in rest:
        yield await text(versions)


async def _resource_lines(versions: list[VisibleVersion], shape: Shape) -> bytes:
    return b"".join(await budget.each(lambda version: subset(version.body, shape) + b"\n", versions))


async def _deletion_lines(versions: list[VisibleVersion]) -> bytes:
    return bulk_export_deletions.bundle(versions)
