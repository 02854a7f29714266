"""read, vread and instance history (http://hl7.org/fhir/R4/http.html#read)."""

from __future__ import annotations

from fhir_server.access.view import View, VisibleVersion
from fhir_server.interactions import bundle_json
from fhir_server.interactions.messages import JSON, Request, Response, etag_version, version_headers
from fhir_server.interactions.service import Service


async def read(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id``; 304 if the caller's copy is the version in view."""
    type, id = request.path[:2]
    seen = await view.read(type, id)
    given = request.headers.get("if-none-match")
    if given is not None and etag_version(given) == str(seen.version):
        return Response(304, headers=version_headers(seen.version, seen.updated))
    return answer(seen)


async def vread(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id/_history/version``, by the number the caller knows the version by."""
    type, id, _, version = request.path
    return answer(await view.version(type, id, version))


async def history(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id/_history``: the versions in view, newest first."""
    type, id = request.path[:2]
    versions = await view.history(type, id)
    return Response(200, bundle_json.history(versions, service.base, f"{type}/{id}/_history"), ((b"content-type", JSON),))


def answer(seen: VisibleVersion, status: int = 200) -> Response:
    """One version as an answer."""
    return Response(status, seen.body, ((b"content-type", JSON), *version_headers(seen.version, seen.updated)))
