"""The FHIR API's table: method and address -> interaction.  The router, batch entries and the CapabilityStatement read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fhir_server.access.view import View, not_found
from fhir_server.errors import Problem
from fhir_server.interactions import bulk_export, everything, read, search, write
from fhir_server.interactions.messages import JSON, NDJSON, Request, Response
from fhir_server.interactions.service import Service
from fhir_server.resources import catalog
from fhir_server.resources.references import ID

ReadHandler = Callable[[View, Request, Service], Awaitable[Response]]
Handler = Callable[[Request, Service], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row.  ``code`` is the CapabilityStatement's; ``look`` is set where the interaction only reads.

    ``media`` is the type of what it answers; ``alone``: it cannot be an entry of a batch.
    """

    code: str
    method: str
    shape: tuple[str, ...]
    handle: Handler
    read_handler: ReadHandler | None = None
    media: bytes = JSON
    alone: bool = False


def _read_route(code: str, method: str, shape: tuple[str, ...], look: ReadHandler) -> Route:
    async def handle(request: Request, service: Service) -> Response:
        return await service.read_with_view(request, lambda view: look(view, request, service))

    return Route(code, method, shape, handle, look)


ROUTES: tuple[Route, ...] = (
    _read_route("read", "GET", ("{type}", "{id}"), read.read),
    _read_route("vread", "GET", ("{type}", "{id}", "_history", "{version}"), read.vread),
    _read_route("history-instance", "GET", ("{type}", "{id}", "_history"), read.history),
    _read_route("search-type", "GET", ("{type}",), search.search),
    _read_route("search-type", "POST", ("{type}", "_search"), search.search),
    _read_route("operation", "GET", ("Patient", "{id}", "$everything"), everything.everything),
    Route("create", "POST", ("{type}",), write.create),
    Route("update", "PUT", ("{type}", "{id}"), write.update),
    Route("delete", "DELETE", ("{type}", "{id}"), write.delete),
    *(
        Route("operation", method, shape, bulk_export.kick_off, alone=True)
        for shape in (("$export",), ("Patient", "$export"), ("Group", "{id}", "$export"))
        for method in ("GET", "POST")
    ),
    Route("operation", "GET", ("$export-status", "{job}"), bulk_export.status, alone=True),
    Route("operation", "DELETE", ("$export-status", "{job}"), bulk_export.cancel, alone=True),
    Route("operation", "GET", ("$export-file", "{job}", "{file}"), bulk_export.file, media=NDJSON, alone=True),
)


def _bucket(shape: tuple[str, ...]) -> tuple[int, str]:
    """What tells rows apart: the length, and the last fixed step."""
    fixed = [step for step in shape if step[0] in "_$"]
    return len(shape), fixed[-1] if fixed else ""


def _matches(row: Route, first: str) -> bool:
    """Whether an address that begins with this step can be one of this row's."""
    return first in catalog() if row.shape[0] == "{type}" else first == row.shape[0]


_BY_PLACE: dict[tuple[int, str], dict[str, Route]] = {}
for _row in ROUTES:
    _BY_PLACE.setdefault(_bucket(_row.shape), {})[_row.method] = _row


def match_route(request: Request) -> Route:
    """The interaction a request asks for.

    Raises Problem ``not_found`` for an address that is none of ours and ``method`` for a method it does not take.
    """
    path = request.path
    rows = _BY_PLACE.get(_bucket(path)) if path else None
    if not rows or not _matches(next(iter(rows.values())), path[0]):
        raise Problem("not_found", "There is nothing at this address.")
    row = rows.get("GET" if request.method == "HEAD" else request.method)
    if row is None:
        raise Problem("method", f"{request.method} is not supported at this address.")
    if "{id}" in row.shape and not ID.fullmatch(path[1]):
        if row.method in ("PUT", "DELETE"):
            raise Problem("invalid", "This is not a valid logical id.")
        raise not_found(path[0], path[1])
    return row
