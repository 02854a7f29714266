"""read and vread (http://hl7.org/fhir/R4/http.html#read)."""

from __future__ import annotations

from typing import Final

from fhir_server.access.audit_trail import TYPE as AUDIT_EVENT
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import preconditions, subscription_search
from fhir_server.interactions.messages import JSON, Request, Response, version_headers
from fhir_server.interactions.service import Service
from fhir_server.interactions.subscription_records import TYPE as SUBSCRIPTION
from fhir_server.interactions.subset import SHAPING, shape_of, subset
from fhir_server.search.suggestions import suggestion

_OF_READS: Final = frozenset({*SHAPING, "_format", "_pretty"})


async def read(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id``; 304 if the caller has this body.  Raises Problem ``not_found``, ``gone``, ``forbidden`` or ``precondition``."""
    type, id = request.path[:2]
    return _answer(request, await _read(view, type, id, service), service)


async def _read(view: View, type: str, id: str, service: Service) -> VisibleVersion:
    """The current version; an AuditEvent may also be a line of the audit log, and a Subscription is a record.

    Raises Problem ``not_found``, ``gone`` or ``forbidden``.
    """
    if type == SUBSCRIPTION:
        return (await subscription_search.read(view, id)).version()
    try:
        return await view.read(type, id)
    except Problem as problem:
        if type != AUDIT_EVENT or problem.kind != "not_found":
            raise
        return await service.audit_trail.read(view, id)


async def vread(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id/_history/number``, where ``number`` counts the versions that the caller can see."""
    type, id, _, number = request.path
    return _answer(request, await view.version(type, id, number), service)


def _answer(request: Request, version: VisibleVersion, service: Service) -> Response:
    if not request.query:
        return preconditions.answer(request, version)
    unknown = next((name for name, _ in request.query if name not in _OF_READS), None)
    if unknown and service.is_strict(request):
        raise Problem("invalid", f"A read has no parameter {unknown!r}.{suggestion(unknown, _OF_READS)}")
    shape = shape_of([pair for pair in request.query if pair[0] in SHAPING])
    return preconditions.answer(request, version, subset(version.body, shape))


def version_response(version: VisibleVersion, status: int = 200) -> Response:
    """A response with one version as its body."""
    return Response(status, version.body, ((b"content-type", JSON), *version_headers(version)))
