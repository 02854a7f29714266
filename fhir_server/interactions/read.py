"""read, vread and instance history (http://hl7.org/fhir/R4/http.html#read)."""

from __future__ import annotations

from typing import Final

from fhir_server.access.audit_trail import TYPE as AUDIT_EVENT
from fhir_server.access.view import View, VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json, paged_parameters, preconditions
from fhir_server.interactions.messages import JSON, Request, Response, version_headers
from fhir_server.interactions.service import Service
from fhir_server.interactions.subset import SHAPING, shape_of, subset
from fhir_server.search.parameter_types.date import interval
from fhir_server.search.rows import STALE_LINK, Position
from fhir_server.search.suggestions import suggestion

_PARAMETERS: Final = frozenset({"_count", "_since", "_page", "_format", "_pretty"})
_OF_READS: Final = frozenset({*SHAPING, "_format", "_pretty"})
_DEFAULT_COUNT: Final = 50


async def read(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id``; 304 if the caller has this body.  Raises Problem ``not_found``, ``gone``, ``forbidden`` or ``precondition``."""
    type, id = request.path[:2]
    return _answer(request, await _read(view, type, id, service), service)


async def _read(view: View, type: str, id: str, service: Service) -> VisibleVersion:
    """The current version; an AuditEvent may also be a line of the audit log.  Raises Problem ``not_found``, ``gone`` or ``forbidden``."""
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


async def history(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id/_history?_count=&_since=``: the visible versions, newest first, in pages.

    Raises Problem ``forbidden``, ``not_found`` or ``invalid``.
    """
    type, id = request.path[:2]
    view.permissions.require(type, "r")
    preconditions.require_only(request)
    parameters = paged_parameters.read(view, request, service, request.query, _PARAMETERS, _DEFAULT_COUNT)
    before = _number(parameters.position, id) if parameters.position is not None else None
    versions, end, total = await view.history(type, id, parameters.count, before, _since(parameters.values))
    links = [("self", parameters.self_link)]
    if end is not None and parameters.count > 0:
        links.append(("next", parameters.next_link(Position((end,), id))))
    return Response(200, headers=((b"content-type", JSON),), parts=bundle_json.history(versions, service.base, links, total))


def _number(position: Position, id: str) -> int:
    """The version number in a page link."""
    (number,) = position.keys if len(position.keys) == 1 and position.id == id else (None,)
    if not isinstance(number, int):
        raise Problem("invalid", STALE_LINK)
    return number


def _since(parameters: dict[str, str]) -> int:
    try:
        return interval(parameters["_since"])[0] if "_since" in parameters else 0
    except ValueError:
        raise Problem("invalid", "_since must be an instant.") from None


def version_response(version: VisibleVersion, status: int = 200) -> Response:
    """A response with one version as its body."""
    return Response(status, version.body, ((b"content-type", JSON), *version_headers(version)))
