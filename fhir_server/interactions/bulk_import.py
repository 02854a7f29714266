"""``$import``: stores the resources of files that the server fetches (https://github.com/smart-on-fhir/bulk-import, a draft).

It is for systems only: backend clients with system scopes for writing.  Each line is written as a create or an update of the client would
be.  The status and the reasons of refusals are available only to the client that started it.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final

from fhir_server.access.permissions import Permissions
from fhir_server.clock import http_date, instant_text
from fhir_server.errors import Issue, Problem, outcome
from fhir_server.interactions import bulk_import_job, bulk_import_request
from fhir_server.interactions.bulk_import_job import FileResult, Job
from fhir_server.interactions.messages import JSON, NDJSON, PLAIN_JSON, AuditContext, Request, Response
from fhir_server.interactions.owned_jobs import owner
from fhir_server.interactions.service import Service

_ACCEPTED: Final = outcome((Issue("informational", "The import has been accepted.", severity="information"),))
_FILE: Final = re.compile(r"errors-(\d{1,4})\.ndjson")


def admit(permissions: Permissions, _: str) -> None:
    """Require a system that may write.  Raises Problem ``forbidden``."""
    principal = permissions.principal
    writes = any(scope.level == "system" and {"c", "u"} & set(scope.interactions) for scope in principal.scopes)
    if principal.client_kind != "backend" or principal.person is not None or not writes:
        raise Problem("forbidden", "$import is for systems with scopes to write.")


async def kick_off(request: Request, service: Service, audit: AuditContext) -> Response:
    """Start an import: 202, with the status URL in ``Content-Location``.

    Raises Problem ``invalid``, ``media_type``, ``forbidden`` or ``too_many``.
    """
    permissions = await service.authenticate(request, audit)
    admit(permissions, "")
    if not request.prefers_async:
        raise Problem("invalid", "$import requires the header Prefer: respond-async.")
    files = bulk_import_request.parse(request, service.sources.hosts)
    for type in dict.fromkeys(file.type for file in files):
        if not permissions.scopes(type, "c") and not permissions.scopes(type, "u"):
            permissions.require(type, "c")
    id = service.new_id()
    job = Job(owner(permissions), f"{service.base}/$import", request.now, files, (FileResult(),) * len(files))
    await bulk_import_job.JOBS.add(service.store.key_values, id, job)
    location = f"{service.base}/$import-status/{id}"
    return Response(202, _ACCEPTED, ((b"content-type", JSON), (b"content-location", location.encode())))


async def status(request: Request, service: Service, audit: AuditContext) -> Response:
    """Import the next part: 202 while there is more.  Then the result: for each file the number of its resources, and its refusals."""
    id = request.path[1]
    job, _ = await _own(request, service, audit)
    await service.require_writable()
    job = await bulk_import_job.advance(service, request, audit, id, job)
    if job.current is not None:
        lines = sum([result.line for result in job.results])
        return Response(202, headers=((b"retry-after", b"1"), (b"x-progress", b"%d lines" % lines)))
    headers = ((b"content-type", PLAIN_JSON), (b"expires", http_date(job.expires).encode()))
    return Response(200, json.dumps(_manifest(service, id, job), ensure_ascii=False, separators=(",", ":")).encode(), headers)


def _manifest(service: Service, id: str, job: Job) -> dict[str, Any]:
    """The result, with the files in the order of the request; ``error`` is named ``outcome`` in the draft of ping and pull."""
    files = sorted(zip(job.files, job.results, range(len(job.files)), strict=True), key=lambda one: one[0].position)
    refusals = [
        {"type": "OperationOutcome", "inputUrl": file.url, "count": result.refused, "url": _errors_url(service, id, number)}
        for file, result, number in files
        if result.refused
    ]
    return {
        "transactionTime": instant_text(job.started),
        "request": job.request,
        "requiresAccessToken": True,
        "output": [{"type": file.type, "inputUrl": file.url, "count": result.stored} for file, result, _ in files],
        "error": refusals,
        "outcome": refusals,
    }


def _errors_url(service: Service, id: str, number: int) -> str:
    return f"{service.base}/$import-file/{id}/errors-{number}.ndjson"


async def cancel(request: Request, service: Service, audit: AuditContext) -> Response:
    """End an import, complete or not: 202.  What it stored stays; its URLs return 404 from then on."""
    job, _ = await _own(request, service, audit)
    await bulk_import_job.delete(service, request.path[1], job.owner, request.now)
    return Response(202)


async def file(request: Request, service: Service, audit: AuditContext) -> Response:
    """Why lines of a file were refused: an OperationOutcome for each, one per line."""
    job, _ = await _own(request, service, audit)
    named = _FILE.fullmatch(request.path[2])
    number = int(named[1]) if named else -1
    if not 0 <= number < len(job.results) or not job.results[number].pages:
        raise Problem("not_found", "There is no such file.")
    return Response(200, headers=((b"content-type", NDJSON),), stream=_pages(service, request, job, number))


async def _pages(service: Service, request: Request, job: Job, number: int) -> AsyncIterator[bytes]:
    for page in range(job.results[number].pages):
        yield await bulk_import_job.errors(service, request.path[1], number, page, request.now)


async def _own(request: Request, service: Service, audit: AuditContext) -> tuple[Job, bytes]:
    permissions = await service.authenticate(request, audit)
    return await bulk_import_job.JOBS.find(service.store.key_values, request.path[1], owner(permissions), request.now)
