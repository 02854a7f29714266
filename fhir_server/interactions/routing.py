"""The routes of the FHIR API: method and URL path to handler.  Used by the API, by batches and by the CapabilityStatement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View, not_found
from fhir_server.errors import Problem
from fhir_server.interactions import (
    async_requests,
    bulk_export,
    bulk_import,
    closure,
    conditional_write,
    history,
    meta_operations,
    patch,
    patient_match,
    raw_binary,
    read,
    record_operations,
    search,
    search_several,
    subscription_binding,
    subscription_operations,
    subscription_write,
    terminology_routes,
    validation,
    write,
    write_rights,
)
from fhir_server.interactions.messages import ANY, JSON, NDJSON, PLAIN_JSON, AuditContext, Request, Response
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
    ``media``         the media type of the response; FHIR's JSON becomes XML for who prefers it; any: the handler decides
    ``batchable``     whether a batch can contain the request
    ``body``          what the request's body is; "": the interaction has none, and none is read; "question": nothing is written,
                      also if the request is in a batch
    ``conditional``   whether the URL's search parameters are the criteria of a write
    ``admit``         for interactions with a body: raises Problem ``forbidden`` for callers who may not do this to the type,
                      whatever the body says
    ``typed``         which segment of the path names this type
    ``definition``    canonical URL of the OperationDefinition that the route implements
    ``is_raw``        whether bodies may be of any media type; in a Bundle, the same path and method have another route
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
    is_raw: bool = False


def _read_route(
    code: str,
    method: str,
    shape: tuple[str, ...],
    read_handler: ReadHandler,
    body: BodyKind = "",
    admit: Admission | None = None,
    typed: int = 0,
    definition: str = "",
    is_raw: bool = False,
) -> Route:
    async def handle(request: Request, service: Service, audit: AuditContext) -> Response:
        expected = (request.path[0], request.path[1]) if code == "read" else None
        return await service.read_with_view(request, audit, lambda view: read_handler(view, request, service), expected)

    media = ANY if is_raw else JSON
    return Route(code, method, shape, handle, read_handler, media, True, body, admit, typed, definition=definition, is_raw=is_raw)


async def _answer_later(request: Request, service: Service, audit: AuditContext) -> Response:
    """The answer to a question that was asked with the preference to be answered later."""
    return await async_requests.status(request, service, audit, _ask)


async def _ask(request: Request, service: Service, audit: AuditContext) -> Response:
    if not request.path and request.method == "POST":
        from fhir_server.interactions import batch  # whose entries go through these routes

        return await batch.process_bundle(request, service, audit)
    route = match_route(request)
    permissions = await service.authenticate(request, audit)
    if route.admit is not None:
        route.admit(permissions, request.path[route.typed])
    return await route.handle(request, service, audit)


def may_be_answered_later(route: Route) -> bool:
    """Whether requests of this route may ask with ``Prefer: respond-async``: all that read more than one version."""
    return route.read_handler is not None and route.code not in ("read", "vread")


_COMPARTMENT = ("{compartment}", "{id}", "{member}")
_R4, _BULK = "http://hl7.org/fhir/OperationDefinition", "http://hl7.org/fhir/uv/bulkdata/OperationDefinition"
_EXPORT_BODIES: tuple[tuple[str, BodyKind], ...] = (("GET", ""), ("POST", "resource"))
_QUESTION_BODIES: tuple[tuple[str, BodyKind], ...] = (("GET", ""), ("POST", "question"))
_EXPORTS = (
    (("$export",), f"{_BULK}/export"),
    (("Patient", "$export"), f"{_BULK}/patient-export"),
    (("Group", "{id}", "$export"), f"{_BULK}/group-export"),
)
_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition"
_SUBSCRIPTION_WRITES: tuple[tuple[str, str, tuple[str, ...], Handler, BodyKind, Admission | None], ...] = (
    ("create", "POST", ("Subscription",), subscription_write.create, "resource", subscription_write.admit_create),
    ("update", "PUT", ("Subscription", "{id}"), subscription_write.update, "resource", subscription_write.admit_update),
    ("delete", "DELETE", ("Subscription", "{id}"), subscription_write.delete, "", None),
)
_SUBSCRIPTION_OPERATIONS: tuple[tuple[tuple[str, ...], ReadHandler], ...] = (
    (("$status",), subscription_operations.status),
    (("{id}", "$status"), subscription_operations.status),
    (("{id}", "$events"), subscription_operations.events),
)

ROUTES: tuple[Route, ...] = (
    _read_route("read", "GET", ("Binary", "{id}"), raw_binary.read, is_raw=True),
    _read_route("vread", "GET", ("Binary", "{id}", "_history", "{version}"), raw_binary.vread, is_raw=True),
    Route("create", "POST", ("Binary",), raw_binary.create, body="resource", admit=write_rights.admit_create, is_raw=True),
    Route("update", "PUT", ("Binary", "{id}"), raw_binary.update, body="resource", admit=write_rights.admit_update, is_raw=True),
    *(
        Route(code, method, shape, handle, batchable=False, body=body, admit=admit)
        for code, method, shape, handle, body, admit in _SUBSCRIPTION_WRITES
    ),
    *(
        _read_route(
            "operation",
            method,
            ("Subscription", *rest),
            handle,
            body,
            subscription_operations.admit if body else None,
            definition=f"{_BACKPORT}/backport-subscription-{handle.__name__}",
        )
        for rest, handle in _SUBSCRIPTION_OPERATIONS
        for method, body in _QUESTION_BODIES
    ),
    *(
        Route(
            "operation",
            method,
            ("Subscription", *rest, "$get-ws-binding-token"),
            subscription_binding.get_token,
            batchable=False,
            body=body,
            admit=subscription_operations.admit if body else None,
            definition=f"{_BACKPORT}/backport-subscription-get-ws-binding-token",
        )
        for rest in ((), ("{id}",))
        for method, body in _QUESTION_BODIES
    ),
    _read_route("read", "GET", ("{type}", "{id}"), read.read),
    _read_route("vread", "GET", ("{type}", "{id}", "_history", "{version}"), read.vread),
    _read_route("history-instance", "GET", ("{type}", "{id}", "_history"), history.of_resource),
    _read_route("history-type", "GET", ("{type}", "_history"), history.of_type),
    _read_route("history-system", "GET", ("_history",), history.of_system),
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
    Route(
        "operation",
        "POST",
        ("$import",),
        bulk_import.kick_off,
        batchable=False,
        body="resource",
        admit=bulk_import.admit,
        definition="https://fhir-server.example/ig/OperationDefinition/import",
    ),
    Route("operation", "GET", ("$import-status", "{job}"), bulk_import.status, media=PLAIN_JSON, batchable=False),
    Route("operation", "DELETE", ("$import-status", "{job}"), bulk_import.cancel, batchable=False),
    Route("operation", "GET", ("$import-file", "{job}", "{file}"), bulk_import.file, media=NDJSON, batchable=False),
    Route("operation", "GET", ("$async-status", "{job}"), _answer_later, batchable=False),
    Route("operation", "DELETE", ("$async-status", "{job}"), async_requests.cancel, batchable=False),
    Route("operation", "GET", ("$export-file", "{job}", "{file}"), bulk_export.file, media=NDJSON, batchable=False),
)


def _route_key(path: tuple[str, ...]) -> tuple[str, ...]:
    """What distinguishes the routes' paths: the segments that begin with ``_`` or ``$``, and where they are."""
    return tuple([segment if segment[0] in "_$" else "" for segment in path])


def _is_compartment(path: tuple[str, ...]) -> bool:
    return path[0] in definitions.compartments() and (path[2] in catalog() or path[2] == search_several.ALL_TYPES)


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_TYPE, _IN_COMPARTMENT = "/type", "/compartment"  # which no segment of a path is
_VARYING = {"{type}": _TYPE, "{compartment}": _IN_COMPARTMENT}
# By what distinguishes their paths, and then by the first segment; the routes of a named type come before those of any type.
_BY_KEY: dict[tuple[tuple[str, ...], str], list[Route]] = {}
for _route in ROUTES:
    _first = _route.shape[0] if _route.shape else ""
    _BY_KEY.setdefault((_route_key(_route.shape), _VARYING.get(_first, _first)), []).append(_route)


def _routes_of(path: tuple[str, ...]) -> list[Route]:
    key, first = _route_key(path), path[0] if path else ""
    routes = _BY_KEY.get((key, first), [])
    if first in catalog() and (of_any_type := _BY_KEY.get((key, _TYPE))):
        routes = routes + of_any_type if routes else of_any_type
    if len(path) > 2 and (in_compartment := _BY_KEY.get((key, _IN_COMPARTMENT))) and _is_compartment(path):
        routes = routes + in_compartment
    return routes


def methods(path: tuple[str, ...]) -> str:
    """The methods that a path takes, as in the header ``Allow`` (RFC 9110 10.2.1); "" for a path without a route."""
    found = {route.method for route in _routes_of(path)} | ({"POST"} if not path else set())  # the base takes Bundles
    if not found:
        return ""
    return ", ".join(name for name in _METHODS if name in found or name == "OPTIONS" or (name == "HEAD" and "GET" in found))


def unsupported(request: Request, allowed: str = "") -> Problem:
    """The Problem of a method that the request's path does not take, with those that it does."""
    allow = (allowed or methods(request.path)).encode()
    return Problem("method", f"This URL does not support {request.method}.", headers=((b"allow", allow),))


def match_route(request: Request, *, in_bundle: bool = False) -> Route:
    """Return the route of a request, or of an entry of a Bundle.

    Raises Problem ``not_found`` for a path without route, ``method`` for a method that the path does not support, and
    ``not_found`` or (for PUT and DELETE) ``invalid`` for a malformed id.
    """
    path = request.path
    routes = _routes_of(path)
    if not routes:
        raise Problem("not_found", "The server has no resource or operation at this URL.")
    method = "GET" if request.method == "HEAD" else request.method
    for route in routes:
        if route.method == method and not (in_bundle and route.is_raw):
            break
    else:
        raise unsupported(request)
    if "{id}" in route.shape and not ID.fullmatch(path[1]):
        if route.method in ("PUT", "DELETE"):
            raise Problem("invalid", "This is not a valid logical id.")
        raise not_found(path[0], path[1])
    return route
