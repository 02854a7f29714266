"""The routes of the FHIR API: method and URL path to handler.  Used by the API, by batches and by the CapabilityStatement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View, not_found
from fhir_server.errors import Problem
from fhir_server.interactions import (
    bulk_export,
    closure,
    conditional_write,
    meta_operations,
    patch,
    patient_match,
    read,
    record_operations,
    search,
    search_several,
    terminology_routes,
    validation,
    write,
    write_rights,
)
from fhir_server.interactions.messages import JSON, NDJSON, PLAIN_JSON, AuditContext, Request, Response
from fhir_server.interactions.operation_parameters import admit_reading
from fhir_server.interactions.service import Service
from fhir_server.resources import catalog, definitions
from fhir_server.resources.references import ID

ReadHandler = Callable[[View, Request, Service], Awaitable[Response]]
Handler = Callable[[Request, Service, AuditContext], Awaitable[Response]]
Admission = Callable[[Permissions, str], None]
BodyKind = Literal["", "form", "resource", "bundle", "question"]


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    ``code``          the interaction's code in the CapabilityStatement
    ``shape``         the path's segments; those in braces vary
    ``read_handler``  for interactions that only read: handles them with a given View, also within a transaction
    ``media``         the media type of the response; FHIR's JSON becomes XML for who prefers it
    ``batchable``     whether a batch can contain the request
    ``body``          what the request's body is; "": the interaction has none, and none is read; "question": nothing is written,
                      also if the request is in a batch
    ``conditional``   whether the URL's search parameters are the criteria of a write
    ``admit``         for interactions with a body: raises Problem ``forbidden`` for callers who may not do this to the type,
                      whatever the body says
    ``typed``         which segment of the path names this type
    ``definition``    canonical URL of the OperationDefinition that the route implements
    """

    code: str
    method: str
    shape: tuple[str, ...]
    handle: Handler
    read_handler: ReadHandler | None = None
    media: bytes = JSON
    batchable: bool = True
    body: BodyKind = ""
    admit: Admission | None = None
    typed: int = 0
    conditional: bool = False
    definition: str = ""


def _read_route(
    code: str,
    method: str,
    shape: tuple[str, ...],
    read_handler: ReadHandler,
    body: BodyKind = "",
    admit: Admission | None = None,
    typed: int = 0,
    definition: str = "",
) -> Route:
    async def handle(request: Request, service: Service, audit: AuditContext) -> Response:
        expected = (request.path[0], request.path[1]) if code == "read" else None
        return await service.read_with_view(request, audit, lambda view: read_handler(view, request, service), expected)

    return Route(code, method, shape, handle, read_handler, body=body, admit=admit, typed=typed, definition=definition)


_COMPARTMENT = ("{compartment}", "{id}", "{member}")
_R4, _BULK = "http://hl7.org/fhir/OperationDefinition", "http://hl7.org/fhir/uv/bulkdata/OperationDefinition"
_EXPORT_BODIES: tuple[tuple[str, BodyKind], ...] = (("GET", ""), ("POST", "resource"))
_QUESTION_BODIES: tuple[tuple[str, BodyKind], ...] = (("GET", ""), ("POST", "question"))
_EXPORTS = (
    (("$export",), f"{_BULK}/export"),
    (("Patient", "$export"), f"{_BULK}/patient-export"),
    (("Group", "{id}", "$export"), f"{_BULK}/group-export"),
)

ROUTES: tuple[Route, ...] = (
    _read_route("read", "GET", ("{type}", "{id}"), read.read),
    _read_route("vread", "GET", ("{type}", "{id}", "_history", "{version}"), read.vread),
    _read_route("history-instance", "GET", ("{type}", "{id}", "_history"), read.history),
    _read_route("search-type", "GET", ("{type}",), search.search),
    _read_route("search-type", "GET", ("{type}", "_search"), search.search),
    _read_route("search-type", "POST", ("{type}", "_search"), search.search, body="form", admit=search.admit),
    _read_route("search-system", "GET", (), search_several.search_system),
    _read_route("search-system", "GET", ("_search",), search_several.search_system),
    _read_route("search-system", "POST", ("_search",), search_several.search_system, body="form", admit=search_several.admit),
    _read_route("search-compartment", "GET", _COMPARTMENT, search_several.search_compartment),
    _read_route("search-compartment", "GET", (*_COMPARTMENT, "_search"), search_several.search_compartment),
    _read_route(
        "search-compartment",
        "POST",
        (*_COMPARTMENT, "_search"),
        search_several.search_compartment,
        body="form",
        admit=search_several.admit_member,
        typed=2,
    ),
    *(
        Route("operation", method, operation.shape, operation.post, body=body, admit=operation.admit, definition=operation.definition)
        if body and operation.post
        else _read_route(
            "operation",
            method,
            operation.shape,
            operation.handle,
            body=body,
            admit=operation.admit if body else None,
            definition=operation.definition,
        )
        for operation in record_operations.OPERATIONS
        for method, body in _QUESTION_BODIES
    ),
    _read_route("operation", "GET", ("{type}", "{id}", "$meta"), meta_operations.meta, definition=f"{_R4}/Resource-meta"),
    *(
        Route(
            "operation",
            "POST",
            ("{type}", "{id}", name),
            meta_operations.change_meta,
            batchable=False,
            body="resource",
            admit=meta_operations.admit,
            definition=f"{_R4}/Resource-{name[1:]}",
        )
        for name in ("$meta-add", "$meta-delete")
    ),
    *(
        Route(
            "operation",
            "POST",
            shape,
            validation.validate,
            body="question",
            admit=validation.admit,
            definition=f"{_R4}/Resource-validate",
        )
        for shape in (("{type}", "$validate"), ("{type}", "{id}", "$validate"))
    ),
    *(
        _read_route("operation", method, shape, handler, body=body, admit=admit_reading if body else None, definition=definition)
        for shape, handler, definition in terminology_routes.OPERATIONS
        for method, body in _QUESTION_BODIES
    ),
    Route(
        "operation",
        "POST",
        ("$closure",),
        closure.closure,
        batchable=False,
        body="resource",
        admit=closure.admit,
        definition=f"{_R4}/ConceptMap-closure",
    ),
    Route(
        "operation",
        "POST",
        ("Patient", "$match"),
        patient_match.match,
        body="question",
        admit=patient_match.admit,
        definition=f"{_R4}/Patient-match",
    ),
    Route("create", "POST", ("{type}",), write.create, body="resource", admit=write_rights.admit_create),
    Route("update", "PUT", ("{type}", "{id}"), write.update, body="resource", admit=write_rights.admit_update),
    Route(
        "update",
        "PUT",
        ("{type}",),
        conditional_write.update,
        body="resource",
        admit=write_rights.admit_conditional_update,
        conditional=True,
    ),
    Route("patch", "PATCH", ("{type}", "{id}"), patch.patch, body="resource", admit=write_rights.admit_update),
    Route(
        "patch",
        "PATCH",
        ("{type}",),
        patch.conditional_patch,
        body="resource",
        admit=write_rights.admit_conditional_update,
        conditional=True,
    ),
    Route("delete", "DELETE", ("{type}", "{id}"), write.delete),
    Route("delete", "DELETE", ("{type}",), conditional_write.delete, conditional=True),
    *(
        Route("operation", method, shape, bulk_export.kick_off, batchable=False, body=body, definition=definition)
        for shape, definition in _EXPORTS
        for method, body in _EXPORT_BODIES
    ),
    Route("operation", "GET", ("$export-status", "{job}"), bulk_export.status, media=PLAIN_JSON, batchable=False),
    Route("operation", "DELETE", ("$export-status", "{job}"), bulk_export.cancel, batchable=False),
    Route("operation", "GET", ("$export-file", "{job}", "{file}"), bulk_export.file, media=NDJSON, batchable=False),
)


def _route_key(path: tuple[str, ...]) -> tuple[str, ...]:
    """What distinguishes the routes' paths: the segments that begin with ``_`` or ``$``, and where they are."""
    return tuple([segment if segment[0] in "_$" else "" for segment in path])


def _matches(shape: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Whether the types in a path are such as the route has."""
    if shape[:1] == ("{compartment}",):
        return path[0] in definitions.compartments() and (path[2] in catalog() or path[2] == search_several.ALL_TYPES)
    return not shape or (path[0] in catalog() if shape[0] == "{type}" else path[0] == shape[0])


_BY_KEY: dict[tuple[str, ...], list[Route]] = {}
for _route in ROUTES:
    _BY_KEY.setdefault(_route_key(_route.shape), []).append(_route)


def match_route(request: Request) -> Route:
    """Return the route of a request.

    Raises Problem ``not_found`` for a path without route, ``method`` for a method that the path does not support, and
    ``not_found`` or (for PUT and DELETE) ``invalid`` for a malformed id.
    """
    path = request.path
    routes = [route for route in _BY_KEY.get(_route_key(path), ()) if _matches(route.shape, path)]
    if not routes:
        raise Problem("not_found", "The server has no resource or operation at this URL.")
    method = "GET" if request.method == "HEAD" else request.method
    route = next((route for route in routes if route.method == method), None)
    if route is None:
        raise Problem("method", f"This URL does not support {request.method}.")
    if "{id}" in route.shape and not ID.fullmatch(path[1]):
        if route.method in ("PUT", "DELETE"):
            raise Problem("invalid", "This is not a valid logical id.")
        raise not_found(path[0], path[1])
    return route
