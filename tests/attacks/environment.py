"""The whole server on a few records, and every address it has pages and forms at, asked from its own routes."""

from __future__ import annotations

from fastapi.routing import APIRoute

from fhir_server import linking, portal
from fhir_server.smart import routes
from tests.portal.environment import World

# What programs send, as opposed to forms: the sender proves itself in each request, and no cookie counts.
PROGRAMS = frozenset({"/oauth/token", "/oauth/revoke", "/oauth/introspect", "/oauth/register", "/oauth/register/{client_id}"})
# Begins a request and decides nothing; apps of any site send people here.
OPEN = frozenset({"/oauth/authorize"})


class House(World):
    def __init__(self) -> None:
        super().__init__()
        smart = self.made.smart
        self.app.include_router(linking.router(smart))
        rooms = (routes.router(smart), portal.router(smart, self.made.service), linking.router(smart))
        self.routes = [route for room in rooms for route in room.routes if isinstance(route, APIRoute)]

    def paths(self, method: str) -> list[str]:
        """The addresses outside the FHIR API that take this method, with ``x`` for what varies."""
        return sorted({route.path for route in self.routes if method in route.methods})

    def forms(self) -> list[str]:
        """The addresses that people's forms are sent to."""
        return [path.replace("{id}", "x") for path in self.paths("POST") if path not in PROGRAMS | OPEN]

    def pages(self) -> list[str]:
        """The addresses that answer GET, for people or for programs."""
        varying = {"{id}": "x", "{patient}": "adult", "{name}": "style.css", "{client_id}": "x"}
        found = []
        for path in self.paths("GET"):
            for name, value in varying.items():
                path = path.replace(name, value)
            found.append(path)
        return found
