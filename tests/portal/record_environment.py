"""A whole server with the seed records, and people who open records on its pages."""

from __future__ import annotations

import re
from typing import Any

import httpx
from fastapi import FastAPI

from fhir_server import portal
from fhir_server.root_app import RootApp
from fhir_server.smart import demo, routes
from fhir_server.smart.core.context import SmartContext
from tests.portal.environment import Visitor
from tests.seeded import seeded
from tests.served import Served
from tests.smart.environment import Browser

_SESSION = re.compile(r'name="token" value="[^"]*"')


class _OneLoop(Browser):
    """A browser whose requests run in the event loop of the server, which a store in a file needs."""

    def __init__(self, app: Any, served: Served) -> None:
        super().__init__(app)
        self._served = served

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._served.run(self._sent(method, path, options))


class RecordPages:
    """The server; :meth:`reader` signs a person in."""

    def __init__(self, served: Served | None = None) -> None:
        self.served: Served = served or seeded()
        pages = FastAPI()
        smart: SmartContext = self.served.parts.smart
        pages.include_router(routes.router(smart))
        pages.include_router(portal.router(smart, self.served.parts.service, self.served.api.ask))
        self.app: Any = RootApp(self.served.api, pages)

    def reader(self, username: str) -> Reader:
        visitor = Visitor(_OneLoop(self.app, self.served))
        assert visitor.send("/sign-in", "/sign-in", username=username, password=demo.PASSWORD).status_code == 303
        return Reader(visitor)

    def write(self, resource: dict[str, Any]) -> None:
        """Store a resource, as the institution's feed does."""
        answer = self.served.request(self.served.token(), "PUT", f"{resource['resourceType']}/{resource['id']}", body=resource)
        assert answer.status in (200, 201), answer.body


class Reader:
    """A person who is signed in."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor

    def records(self) -> dict[str, str]:
        """The addresses of the person's records, by the name on the first page."""
        return {name: path for path, name in re.findall(r'<p class="name"><a href="(/r/[^"]+)">([^<]+)</a>', self.visitor.get("/").text)}

    def address(self, name: str) -> str:
        return next(path for known, path in self.records().items() if name in known)

    def page(self, path: str) -> str:
        """A page without what is another in each session."""
        answer = self.open(path)
        assert answer.status_code == 200, (path, answer.status_code)
        return _SESSION.sub("", answer.text)

    def open(self, path: str) -> httpx.Response:
        return self.visitor.get(path)
