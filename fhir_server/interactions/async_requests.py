"""``Prefer: respond-async``: a question whose answer is fetched later (http://hl7.org/fhir/R4/async.html; as a Bundle, as R5 says).

A job is the question alone.  Nothing of the answer is computed before it is fetched, or kept: each status request asks the question in the
View of that request and returns what the caller may see then, with the parameters and preferences of the kick-off.  So a job
survives a restart, holds no resource that would have to follow a change of labels, a deletion or a revocation, and tells nobody how
far it has come.  Its requests belong to the client, person and patient context that began it.

Every read but those of one resource can be asked so, and batches of reads.  Whatever else has the preference is answered at once, as R4
allows, without ``Preference-Applied``: writes, other batches, transactions, requests with a precondition or a Provenance, which are about
this moment, and all requests while the server is read-only, when no job can be stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from fhir_server.clock import http_date
from fhir_server.errors import Issue, Problem, outcome
from fhir_server.interactions import preconditions, provenance_header, response_bundle
from fhir_server.interactions.messages import JSON, AuditContext, AuditedEntry, Request, Response
from fhir_server.interactions.owned_jobs import OwnedJobs, owner
from fhir_server.interactions.service import Service

MAX_JOBS: Final = 30  # of one owner at a time, from the kick-off until they are deleted or expire
LIFE: Final = 24 * 3600 * 1_000_000
_LARGEST: Final = 64 * 1024  # bytes of a question's body; a larger one is answered at once
_KEPT: Final = ("prefer", "content-type")
_OF_THE_MOMENT: Final = preconditions.ALL | {provenance_header.HEADER}
_ACCEPTED: Final = outcome((Issue("informational", "The request has been accepted.", severity="information"),))
_APPLIED: Final = (b"preference-applied", b"respond-async")
# They say that the server cannot answer now, which is no answer to the question.
_PASSING: Final = frozenset({"unauthenticated", "busy", "too_costly", "read_only", "too_many"})
Ask = Callable[[Request, Service, AuditContext], Awaitable[Response]]


class Job(msgspec.Struct, frozen=True):
    """A question.  ``owner``: see :func:`.owned_jobs.owner`; ``slot``: its place among the owner's (:data:`MAX_JOBS`)."""

    owner: str
    started: int
    method: str
    path: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    body: bytes
    slot: int = -1

    @property
    def expires(self) -> int:
        """When the job is deleted, in microseconds since 1970 UTC."""
        return self.started + LIFE


JOBS: Final = OwnedJobs(
    "async-job", "async-slot", Job, most=MAX_JOBS, what="requests of yours that are answered later", absent="There is no such request."
)


async def kick_off(request: Request, service: Service, audit: AuditContext) -> Response | None:
    """Keep the question: 202, with the status URL in ``Content-Location``.  None if it must be answered at once.

    Raises Problem ``unauthenticated``, or ``too_many`` if the owner has as many jobs as are allowed.
    """
    permissions = await service.authenticate(request, audit)
    if len(request.body) > _LARGEST or not _OF_THE_MOMENT.isdisjoint(request.headers) or not await _can_be_stored(service):
        return None
    id, of = service.new_id(), owner(permissions)
    headers = {name: request.headers[name] for name in _KEPT if name in request.headers}
    job = Job(of, request.now, request.method, request.path, request.query, headers, request.body)
    await JOBS.add(service.store.key_values, id, job)
    location = f"{service.base}/$async-status/{id}".encode()
    own = ((b"content-type", JSON), (b"content-location", location), (b"retry-after", b"1"), _APPLIED)
    return Response(202, _ACCEPTED, own)


async def _can_be_stored(service: Service) -> bool:
    try:
        await service.require_writable()
    except Problem:
        return False
    return True


async def status(request: Request, service: Service, audit: AuditContext, ask: Ask) -> Response:
    """``GET $async-status/id``: the answer as of now, as the only entry of a Bundle of type batch-response; that of a batch is one itself.

    ``ask`` asks the question.  An error of the question is its answer; an error that passes is that of this request.  Raises Problem
    ``not_found`` if the job does not exist, has expired, or belongs to another owner.
    """
    job = await _find(request, service, audit)
    # The format is that of the status request.
    headers = {name: request.headers[name] for name in ("authorization",) if name in request.headers} | job.headers
    asked = msgspec.structs.replace(request, method=job.method, path=job.path, query=job.query, headers=headers, body=job.body)
    of_question = AuditContext(shown=audit.shown, store_lines=audit.store_lines)
    try:
        response = await ask(asked, service, of_question)
    except Problem as problem:
        if problem.kind in _PASSING:
            raise
        response = Response(problem.status, problem.outcome())
        problem.let_go()
    audit.entries += of_question.entries or [AuditedEntry(asked, response.status)]
    is_bundle = response.status == 200 and not job.path and job.method == "POST"  # the answer to a batch
    bundle = response if is_bundle else await response_bundle.of("batch-response", [response])
    return msgspec.structs.replace(bundle, headers=(*bundle.headers, (b"expires", http_date(job.expires).encode())))


async def cancel(request: Request, service: Service, audit: AuditContext) -> Response:
    """``DELETE $async-status/id``: 202.  The URL returns 404 from then on."""
    job = await _find(request, service, audit)
    await JOBS.remove(service.store.key_values, request.path[1], job.owner, request.now)
    return Response(202)


async def _find(request: Request, service: Service, audit: AuditContext) -> Job:
    """The caller's job that the request names.  Raises Problem ``invalid``, ``not_found`` or ``unauthenticated``."""
    permissions = await service.authenticate(request, audit)
    job, _ = await JOBS.find(service.store.key_values, request.path[1], owner(permissions), request.now)
    preconditions.require_only(request)
    return job
