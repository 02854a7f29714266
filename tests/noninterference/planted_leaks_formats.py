"""Planted leaks of the content of Binaries and of requests that are answered later."""

from __future__ import annotations

from dataclasses import replace

from fhir_server.access.view import View
from fhir_server.interactions import raw_binary, routing
from fhir_server.interactions.messages import AuditContext, Request, Response
from fhir_server.interactions.service import Service
from tests.noninterference.planted_leaks import Patch, leak, of_record, reroute


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
