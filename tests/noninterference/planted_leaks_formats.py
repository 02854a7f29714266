"""Planted leaks of the content of Binaries and of requests that are answered later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions import async_requests, raw_binary, routing
from fhir_server.interactions.messages import AuditContext, Request, Response
from fhir_server.interactions.service import Service
from fhir_server.search.filters import EVERYTHING
from tests.noninterference.planted_leaks import Patch, leak, of_record, reroute, unlimited


@leak("R07")
def the_content_of_a_file_is_read_without_the_view(patch: Patch) -> None:
    async def look(view: View, request: Request, service: Service) -> Response:
        visibility = await of_record(view)
        other = View(view._snapshot, view.permissions, view.now)
        other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
        return await raw_binary.read(other, request, service)

    async def handle(request: Request, service: Service, audit: AuditContext) -> Response:
        return await service.read_with_view(request, audit, lambda view: look(view, request, service))

    def change(row: routing.Route) -> routing.Route | None:
        return replace(row, handle=handle) if row.is_raw and row.code == "read" else None

    reroute(patch, change)


@leak("R07")
def a_range_is_compared_with_the_size_of_a_hidden_file(patch: Patch) -> None:
    async def handle(request: Request, service: Service, audit: AuditContext) -> Response:
        async def sized(view: View) -> None:
            row = await view._snapshot.read("Binary", request.path[1], await of_record(view))
            if row is not None and request.headers.get("range", "").startswith("bytes=100000"):
                raise Problem("range", "The content has no byte of the range.")

        await service.read_with_view(request, audit, sized)
        return await service.read_with_view(request, audit, lambda view: raw_binary.read(view, request, service))

    reroute(patch, lambda row: replace(row, handle=handle) if row.is_raw and row.code == "read" else None)


@leak("A04")
def a_later_answer_is_made_by_the_system(patch: Patch) -> None:
    async def ask(request: Request, service: Service, audit: AuditContext) -> Response:
        handler = routing.match_route(request).read_handler
        assert handler is not None

        async def look(view: View) -> Response:
            visibility = await of_record(view)
            other = View(view._snapshot, view.permissions, view.now)
            other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
            return await handler(other, request, service)

        return await service.read_with_view(request, audit, look)

    patch.setattr(routing, "_ask", ask)


@leak("C12")
def a_job_tells_how_many_rows_it_has_to_read(patch: Patch) -> None:
    exact = async_requests.status

    async def status(request: Request, service: Service, audit: AuditContext, ask: Any) -> Response:
        async def size(view: View) -> int:
            return await view._snapshot.count("Observation", EVERYTHING, await unlimited(view, view.permissions.patients))

        answer = await exact(request, service, audit, ask)
        rows = await service.read_with_view(request, audit, size)
        return Response(answer.status, answer.body, (*answer.headers, (b"x-progress", b"%d rows" % rows)), parts=answer.parts)

    patch.setattr(async_requests, "status", status)
