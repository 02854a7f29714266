"""Two systems: ``ours`` links to ``theirs``, a second instance of this server's authorization server with some FHIR resources."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from fhir_server.linking import organizations, routes
from fhir_server.linking.context import LinkingContext
from fhir_server.linking.organizations import Organization
from fhir_server.smart import demo
from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import signing_keys
from fhir_server.smart.routes import router
from tests.smart.environment import BASE, Clock, Page, World
from tests.waiting import HANG

OURS = "http://127.0.0.1:9000"
CALLBACK = f"{OURS}/links/callback"
SCOPES = "openid fhirUser launch/patient offline_access patient/*.rs"
NEIGHBOUR = Organization("neighbour", "Neighbour <Health>", BASE, "our-portal")
SIGNED = Organization("signed", "Signed Health", BASE, "our-signed-portal", "private_key_jwt")

ROWS: dict[str, list[dict[str, Any]]] = {
    "AllergyIntolerance": [
        {"code": {"text": "Peanut <b>"}, "reaction": [{"manifestation": [{"text": "Hives"}]}], "recordedDate": "2020-02-03"},
        {"code": {"text": "Never was"}, "verificationStatus": {"coding": [{"code": "entered-in-error"}]}},
    ],
    "MedicationStatement": [{"medicationCodeableConcept": {"coding": [{"display": "Metformin 500 mg"}]}}],
    "Observation": [
        {
            "code": {"text": "Potassium"},
            "valueQuantity": {"value": 4.10, "unit": "mmol/L"},
            "effectiveDateTime": "2026-01-02T03:04:05Z",
        }
    ],
    "Encounter": [{"type": [{"text": "Office visit"}], "period": {"start": "2025-05"}}],
}
OWNERS = {"AllergyIntolerance": "patient"}
PATIENTS: dict[str, dict[str, Any]] = {
    "adult": {"name": [{"given": ["Adele"], "family": "Adult"}], "birthDate": "1980-02-03"},
    "child": {"name": [{"text": "Charlie <i>Child</i>"}], "birthDate": "2018-05-03"},
    "teen": {"name": [{"given": ["Terry"], "family": "Teen"}], "birthDate": "2012"},
}


class Wire(httpx.AsyncBaseTransport):
    """Sends requests to ``app`` and records them. ``instead`` replaces the response for paths with these endings."""

    def __init__(self, app: FastAPI) -> None:
        self.app = httpx.ASGITransport(app)
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        self.instead: dict[str, Callable[[httpx.Request], Any]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls.append((request.method, str(request.url), dict(request.url.params)))
        for end, answer in self.instead.items():
            if request.url.path.endswith(end):
                given = answer(request)
                made = await given if asyncio.iscoroutine(given) else given
                # What was made from a text counts as read already; from a network it would not.
                return httpx.Response(made.status_code, headers=made.headers, stream=made.stream)
        return await self.app.handle_async_request(request)

    def paths(self) -> list[str]:
        return [httpx.URL(url).path for _, url, _ in self.calls]


class Theirs(World):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.alive = True

        @self.app.get("/fhir/Patient/{id}")
        async def read(id: str, request: Request) -> JSONResponse:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            from fhir_server.smart.tokens.tokens import resolve_principal

            caller = await resolve_principal(self.store, token, self.clock())
            if caller is None or caller.patient != id:
                return JSONResponse({"resourceType": "OperationOutcome"}, 401)
            return JSONResponse({"resourceType": "Patient", "id": id} | PATIENTS.get(id, {}))

        @self.app.get("/fhir/{type}")
        async def search(type: str, request: Request) -> JSONResponse:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            from fhir_server.smart.tokens.tokens import resolve_principal

            caller = await resolve_principal(self.store, token, self.clock())
            if caller is None or caller.patient != request.query_params["patient"]:
                return JSONResponse({"resourceType": "OperationOutcome"}, 401)
            if type == "CareTeam":
                return JSONResponse({"resourceType": "OperationOutcome"}, 403)
            subject = {OWNERS.get(type, "subject"): {"reference": f"Patient/{caller.patient}"}}
            rows = [{"resource": {"resourceType": type} | subject | row} for row in ROWS.get(type, ())]
            return JSONResponse({"resourceType": "Bundle", "type": "searchset", "entry": rows})

    async def register(self, jwks: dict[str, Any]) -> None:
        await clients.save(self.store, Client("our-portal", "Our portal", "partner", "none", SCOPES, (CALLBACK,)))
        signed = Client("our-signed-portal", "Our portal", "partner", "private_key_jwt", SCOPES, (CALLBACK,), jwks=jwks)
        await clients.save(self.store, signed)


class Ours(World):
    def wire(self, wire: httpx.AsyncBaseTransport, key: str = "", deadline: float = HANG) -> None:
        self.smart = replace(self.smart, origin=OURS, key=key, fhir_base=f"{OURS}/fhir")
        self.context = LinkingContext(self.smart, wire, deadline, first_seconds=HANG, view_seconds=HANG)
        self.app = FastAPI()
        self.app.include_router(router(self.smart))
        self.app.include_router(routes.build(self.context))
        self.http = self.browser()


@dataclass
class Worlds:
    """Both systems with one clock. The person is ``adult`` on both unless a test changes that."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.theirs, self.ours = Theirs(self.clock), Ours(self.clock)
        self.wire = Wire(self.theirs.app)
        self.ours.wire(self.wire)
        asyncio.run(self._registered())

    async def _registered(self) -> None:
        for organization in (NEIGHBOUR, SIGNED):
            await organizations.add(self.ours.smart, organization)
        await self.theirs.register(await signing_keys.jwks(self.ours.smart))

    @property
    def context(self) -> LinkingContext:
        return self.ours.context

    def user(self, username: str = "adult") -> User:
        found = asyncio.run(users.find(self.ours.store, username))
        assert found is not None
        return found

    def sign_in(self, username: str = "adult") -> None:
        self.ours.http.cookies.clear()
        answer = self.ours.sign_in(self.ours.http.get("/sign-in?next=/links"), username)
        assert "Linked accounts" in answer.text or answer.status_code == 403

    def token(self) -> str:
        return dict(Page(self.ours.http.get("/links").text).sent)["token"]

    def start(self, organization: str = "neighbour") -> httpx.Response:
        return self.ours.http.post("/links", data={"organization": organization, "token": self.token()})

    def started(self, organization: str = "neighbour") -> str:
        """Return the URL at which the person signs in at the other system."""
        answer = self.start(organization)
        assert answer.status_code == 200, answer.text
        found = re.search(r'<a href="(http[^"]+)"', answer.text)
        assert found, answer.text
        return found[1].replace("&amp;", "&")

    def agreed(self, url: str, username: str = "adult", patient: str = "adult", decision: str = "allow") -> str:
        """Sign in and decide at the other system; return the URL of the redirect back."""
        self.theirs.http.cookies.clear()
        page = self.theirs.sign_in(self.theirs.follow(self.theirs.http.get(url)), username)
        if Page(page.text).radios:
            page = self.theirs.submit(page, patient=patient)
        return str(self.theirs.submit(page, decision=decision).headers["location"])

    def back(self, url: str) -> httpx.Response:
        assert url.startswith(CALLBACK)
        return self.ours.http.get(url.removeprefix(OURS))

    def linked(self, organization: str = "neighbour", **who: str) -> str:
        """Link an account; return the path of its page."""
        answer = self.back(self.agreed(self.started(organization), **who))
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    def kept(self) -> dict[str, int]:
        """Return the number of stored records of the links, by kind."""

        async def count() -> dict[str, int]:
            from fhir_server.linking import links

            mine = await links.list_all(self.context, await self._adult())
            tokens = await self.ours.store.key_values.list_all("link-tokens", self.clock())
            return {"links": len(mine), "tokens": len(tokens)}

        return asyncio.run(count())

    async def _adult(self) -> User:
        found = await users.find(self.ours.store, "adult")
        assert found is not None
        return found

    def their_tokens(self) -> int:
        """Return the number of valid refresh tokens that the other system issued to this server."""
        from fhir_server.smart.core import token_grants

        standing = asyncio.run(token_grants.active_grants(self.theirs.store, self.clock()))
        return sum(one.client_id.startswith("our-") for one in standing)


PASSWORD = demo.PASSWORD
