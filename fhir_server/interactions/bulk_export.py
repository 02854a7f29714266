"""``$export`` of the whole system, of all patients or of a Group (https://hl7.org/fhir/uv/bulkdata/STU2/export.html).

Kick-off, state and files; all three belong to who asked.  What lies beyond the caller's View is in none of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from functools import partial

from fhir_server.access.view import View, VisibleVersion
from fhir_server.clock import http_date, instant_text
from fhir_server.errors import Issue, Problem, outcome
from fhir_server.interactions import bulk_export_job, bulk_export_request
from fhir_server.interactions.bulk_export_job import Job
from fhir_server.interactions.bulk_export_request import ExportRequest
from fhir_server.interactions.messages import JSON, NDJSON, Request, Response, format_query
from fhir_server.interactions.service import Service

_ACCEPTED = outcome((Issue("informational", "The export has been accepted.", severity="information"),))


async def kick_off(request: Request, service: Service) -> Response:
    """Accept an export: 202, and its address in ``Content-Location``."""
    if not re.search(r"(?:^|[,;\s])respond-async(?:$|[,;\s])", request.headers.get("prefer", "")):
        raise Problem("invalid", "$export is asked for with Prefer: respond-async.")
    asked = bulk_export_request.read(request)
    job = await service.read_with_view(request, partial(_accepted, request=request, service=service, asked=asked))
    id = service.new_id()
    await bulk_export_job.save(service, id, job)
    location = f"{service.base}/$export-status/{id}"
    return Response(202, _ACCEPTED, ((b"content-type", JSON), (b"content-location", location.encode())))


async def _accepted(view: View, request: Request, service: Service, asked: ExportRequest) -> Job:
    types = asked.type_names(view)
    for type in types:
        if type in asked.searches:
            view.permissions.require(type, "s")
        await asked.condition(view, type, service.base)
    if asked.level == "group":
        await view.read("Group", asked.group)
    address = f"{service.base}/{'/'.join(request.path)}" + (f"?{format_query(request.query)}" if request.query else "")
    return Job(bulk_export_job.owner(view.permissions), address, view.now, asked, types)


async def status(request: Request, service: Service) -> Response:
    """202 while under way; then the manifest, with a file for each type of which something is in view."""
    id = request.path[1]
    job = await bulk_export_job.collect_next_pages(service, request, id, await _mine(request, service))
    if job.todo:
        return Response(202, headers=((b"retry-after", b"1"), (b"x-progress", b"in progress")))
    files = [type for type in job.pages if await _first(bulk_export_job.contents(service, request, id, job, type))]
    manifest = {
        "transactionTime": instant_text(job.started),
        "request": job.request,
        "requiresAccessToken": True,
        "output": [{"type": type, "url": f"{service.base}/$export-file/{id}/{type}.ndjson"} for type in files],
        "error": [],
    }
    headers = ((b"content-type", b"application/json"), (b"expires", http_date(job.expires).encode()))
    return Response(200, json.dumps(manifest, separators=(",", ":")).encode(), headers)


async def cancel(request: Request, service: Service) -> Response:
    """End an export, under way or complete: 202, and its address is not known any more."""
    await bulk_export_job.delete(service, request.path[1], await _mine(request, service), request.now)
    return Response(202)


async def file(request: Request, service: Service) -> Response:
    """The rows of one type, one a line.  What leaves the view while it is sent is not sent."""
    id, name = request.path[1:]
    rows = bulk_export_job.contents(service, request, id, await _mine(request, service), name.removesuffix(".ndjson"))
    first = await _first(rows)
    if not first:
        raise Problem("not_found", "This file is not known.")
    return Response(200, headers=((b"content-type", NDJSON),), stream=_lines(first, rows))


async def _mine(request: Request, service: Service) -> Job:
    async def asker(view: View) -> str:
        return bulk_export_job.owner(view.permissions)

    return await bulk_export_job.find(service, request.path[1], await service.read_with_view(request, asker), request.now)


async def _first(rows: AsyncIterator[list[VisibleVersion]]) -> list[VisibleVersion]:
    return await anext(rows, [])


async def _lines(first: list[VisibleVersion], rest: AsyncIterator[list[VisibleVersion]]) -> AsyncIterator[bytes]:
    yield b"".join([seen.body + b"\n" for seen in first])
    async for rows in rest:
        yield b"".join([seen.body + b"\n" for seen in rows])
