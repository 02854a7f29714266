"""The whole server with a few records, and the URLs of its pages and forms, read from its routes."""

from __future__ import annotations

from fastapi.routing import APIRoute

from fhir_server import linking, portal
from fhir_server.smart import routes
from tests.portal.environment import World

# Endpoints for programs: each request carries credentials, and cookies are ignored.
PROGRAMS = frozenset(
    {
        *("/oauth/token", "/oauth/revoke", "/oauth/introspect", "/oauth/par", "/oauth/userinfo"),
        *("/oauth/register", "/oauth/register/{client_id}"),
    }
)
# Starts a request and decides nothing; apps on any site redirect browsers here.
OPEN = frozenset({"/oauth/authorize", "/oauth/logout"})


class House(World):
    def __init__(self) -> None:
        super().__init__()
        smart = self.made.smart
        self.app.include_router(linking.router(smart))
        rooms = (routes.router(smart), portal.router(smart, self.made.service, self.api.ask), linking.router(smart))
        self.routes = [route for room in rooms for route in room.routes if isinstance(route, APIRoute)]

    def paths(self, method: str) -> list[str]:
        """The URLs outside the FHIR API that accept this method, with ``x`` for path parameters."""
        return sorted({route.path for route in self.routes if method in route.methods})

    def forms(self) -> list[str]:
        """The URLs to which forms are sent."""
        return [path.replace("{id}", "x") for path in self.paths("POST") if path not in PROGRAMS | OPEN]

    def pages(self) -> list[str]:
        """The URLs that answer GET, for browsers or programs."""
        varying = {
            "{id}": "x",
            "{key}": "x",
            "{section}": "results",
            "{kind}": "documents",
            "{number}": "0",
            "{patient}": "adult",
            "{name}": "style.css",
            "{client_id}": "x",
        }
        found = []
        for path in self.paths("GET"):
            for name, value in varying.items():
                path = path.replace(name, value)
            found.append(path)
        return found
