"""read, vread and instance history (http://hl7.org/fhir/R4/http.html#read)."""

from __future__ import annotations

from fhir_server.access.view import View, VisibleVersion
from fhir_server.interactions import bundle_json, preconditions
from fhir_server.interactions.messages import JSON, Request, Response, version_headers
from fhir_server.interactions.service import Service


async def read(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id``; 304 if the caller has this body.  Raises Problem ``not_found``, ``gone``, ``forbidden`` or ``precondition``."""
    type, id = request.path[:2]
    return preconditions.answer(request, await view.read(type, id))


async def vread(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id/_history/number``, where ``number`` counts the versions that the caller can see."""
    type, id, _, number = request.path
    return preconditions.answer(request, await view.version(type, id, number))


async def history(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id/_history``: the visible versions, newest first."""
    type, id = request.path[:2]
    view.permissions.require(type, "r")
    preconditions.require_only(request)
    versions = await view.history(type, id)
    return Response(200, bundle_json.history(versions, service.base, f"{type}/{id}/_history"), ((b"content-type", JSON),))


def version_response(version: VisibleVersion, status: int = 200) -> Response:
    """A response with one version as its body."""
    return Response(status, version.body, ((b"content-type", JSON), *version_headers(version)))
