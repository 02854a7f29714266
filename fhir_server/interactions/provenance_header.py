"""``X-Provenance``: a Provenance for what a request writes (http://hl7.org/fhir/R4/provenance.html#header).

The server sets its target and stores both in one transaction, or neither.  Of a transaction Bundle, its targets are all resources that
the Bundle creates, updates or patches.  The Provenance is judged as one that is created by a request of its own.  Its target has no
version: each caller counts the versions of a resource differently.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec

from fhir_server import jsontext
from fhir_server.errors import Issue, Problem
from fhir_server.interactions import creation, profile_claims
from fhir_server.interactions.messages import AuditContext, Request, Response
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.writing.draft import Draft

HEADER: Final = "x-provenance"
_TYPE: Final = "Provenance"
_UNKNOWN: Final = b'[{"reference":"Patient/x"}]'  # a target that every R4 validator takes, until the target is known


def require_none(request: Request) -> None:
    """Require that a request that stores no version of a resource has no ``X-Provenance``.  Raises Problem ``invalid``."""
    if HEADER in request.headers:
        raise Problem("invalid", "This request does not take X-Provenance.")


async def write(request: Request, service: Service, audit: AuditContext, job: Callable[[WriteContext], Awaitable[Response]]) -> Response:
    """As :meth:`Service.write_with_view`, with the Provenance of the request for what the job writes.

    Raises Problem ``invalid`` for a malformed one, and what creating a Provenance raises.
    """
    draft = await received(request, service)

    async def run(context: WriteContext) -> Response:
        response = await job(context)
        await record(context, service, draft, ((request.method, response),))
        return response

    return await service.write_with_view(request, audit, run)


async def received(request: Request, service: Service) -> Draft | None:
    """The Provenance in the request's header, with a target to be replaced.  Raises Problem ``invalid`` or ``too_large``."""
    text = request.headers.get(HEADER)
    if text is None:
        return None
    try:
        members = jsontext.members(text.encode("latin-1"))
    except (msgspec.DecodeError, UnicodeError):
        raise Problem("invalid", "X-Provenance is not the JSON of a Provenance.") from None
    if "target" in members:
        raise Problem("invalid", "X-Provenance has no target: the server sets it.")
    try:
        # The text as sent is parsed, too: the decoder above takes a repeated name.
        jsontext.parse(text.encode("latin-1"))
        draft = await service.parser.draft(jsontext.join_members(members | {"target": _UNKNOWN}), _TYPE, base=service.base)
        return await profile_claims.checked(draft, service.profiles)
    except Problem as problem:
        raise _of_header(problem) from None


async def record(context: WriteContext, service: Service, draft: Draft | None, answers: Iterable[tuple[str, Response]]) -> None:
    """Store the Provenance of what requests wrote: of each the method, and its response.  Raises what creating a Provenance raises."""
    if draft is None:
        return
    targets = [name for method, response in answers if (name := _written(method, response, service.base))]
    if not targets:
        return
    text = jsontext.join_members({**draft.parts, "target": json.dumps([{"reference": name} for name in targets]).encode()})
    try:
        named = creation.admitted(context, draft.with_text(text), service)
        await creation.stored(context, named, service.new_id(), service, frozenset(targets))
    except Problem as problem:
        raise _of_header(problem) from None


def _written(method: str, response: Response, base: str) -> str:
    """``Type/id`` of the version that a response to a write names; "" if the request wrote none."""
    if method not in ("POST", "PUT", "PATCH") or response.status not in ((201,) if method == "POST" else (200, 201)):
        return ""
    location = dict(response.headers).get(b"location", b"").decode().removeprefix(base + "/")
    return location.partition("/_history/")[0]


def _of_header(problem: Problem) -> Problem:
    issues = tuple(Issue(issue.code, f"X-Provenance: {issue.text}", severity=issue.severity) for issue in problem.issues)
    return Problem(problem.kind, issues[0].text, issues)
