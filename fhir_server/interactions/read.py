"""read, vread and instance history (http://hl7.org/fhir/R4/http.html#read)."""

from __future__ import annotations

from fhir_server.access import etags
from fhir_server.access.audit_trail import TYPE as AUDIT_EVENT
from fhir_server.access.view import View, VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import bundle_json
from fhir_server.interactions.messages import JSON, Request, Response, version_headers
from fhir_server.interactions.service import Service


async def read(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id``.  304 if If-None-Match names this body.  Raises Problem ``not_found``, ``gone`` or ``forbidden``."""
    type, id = request.path[:2]
    version = await _read(view, type, id, service)
    known = request.headers.get("if-none-match")
    if known is not None and etags.names_body(known, version):
        return Response(304, headers=version_headers(version))
    return version_response(version)


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
    return version_response(await view.version(type, id, number))


async def history(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id/_history``: the visible versions, newest first."""
    type, id = request.path[:2]
    versions = await view.history(type, id)
    return Response(200, bundle_json.history(versions, service.base, f"{type}/{id}/_history"), ((b"content-type", JSON),))


def version_response(version: VisibleVersion, status: int = 200) -> Response:
    """A response with one version as its body."""
    return Response(status, version.body, ((b"content-type", JSON), *version_headers(version)))
