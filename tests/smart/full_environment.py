"""The whole server with the seed records: pages, OAuth endpoints and FHIR API at one origin."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from fhir_server.root_app import RootApp
from fhir_server.smart.routes import router
from tests.seeded import seeded
from tests.served import Answer
from tests.smart.environment import Page, World, query


class Whole(World):
    """A :class:`World` with the seed bundles in its store and with the FHIR API."""

    def __post_init__(self) -> None:
        self.served = seeded()
        self.store, self.smart = self.served.parts.store, self.served.parts.smart
        self.clock = self.smart.now  # type: ignore[assignment]
        pages = FastAPI()
        pages.include_router(router(self.smart))
        self.app = RootApp(self.served.api, pages)  # type: ignore[assignment]
        self.http = self.browser()

    def allowed(
        self, username: str, patient: str, *, untick: tuple[str, ...] = (), visit: str | None = None, **ticked: Any
    ) -> dict[str, Any]:
        """Clear the ``untick`` values on the consent page, check lists such as ``part``, allow, and return the token response."""
        asked = {name: ticked.pop(name) for name in ("scope", "launch", "client_id") if name in ticked}
        self.http.cookies.clear()
        page = self.consent_page(username, patient, **asked)
        if visit is not None:
            page = self.submit(page, encounter=visit)
        return dict(self.exchange(self.answered(page, untick, ticked)).json())

    def answered(self, page: Any, untick: tuple[str, ...], ticked: dict[str, Any]) -> str:
        if page.is_redirect:  # staff are not asked for an approved app
            return query(page.headers["location"])["code"]
        sent = [(name, value) for name, value in Page(page.text).sent if value not in untick]
        sent += [(name, value) for name, values in ticked.items() for value in values] + [("decision", "allow")]
        grouped: dict[str, list[str]] = {}
        for name, value in sent:
            grouped.setdefault(name, []).append(value)
        return query(self.http.post("/oauth/consent", data=grouped).headers["location"])["code"]

    def get(self, token: str, path: str) -> Answer:
        return self.served.get(token, path)
