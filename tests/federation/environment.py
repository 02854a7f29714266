"""Three test issuers: ``ours``, and two identity providers for its users."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from fastapi import FastAPI
from joserfc import jwt

from fhir_server.smart import demo
from fhir_server.smart.accounts import identity_providers, users
from fhir_server.smart.accounts.identity_providers import Provider
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.context import digest
from fhir_server.smart.routes import router
from tests.smart.environment import Browser, Clock, Page, World, claims_of, query

OURS, NORTH, SOUTH = (f"http://127.0.0.1:{port}" for port in (9000, 7001, 7002))
SECRET = "s3cret-of-ours"
FEDERATED = {"north": Provider(NORTH, "North <ID>", "us", "client_secret"), "south": Provider(SOUTH, "South", "us", "private_key_jwt")}


class Issuer(World):
    """An issuer with its own origin."""

    def open(self) -> None:
        """Nothing before the origin is known."""

    def at(self, origin: str, transport: httpx.AsyncBaseTransport | None = None, key: str = "") -> None:
        self.smart = replace(self.smart, origin=origin, fhir_base=f"{origin}/fhir", key=key)
        self.app = FastAPI(routes=list(router(self.smart, transport).routes))
        self.http = self.browser()

    def registers(self, client: Client) -> None:
        asyncio.run(clients.save(self.store, client))


class Wire(httpx.AsyncBaseTransport):
    """Routes requests of ``ours`` to the providers by origin and records them; ``instead`` replaces responses by URL suffix."""

    def __init__(self) -> None:
        self.apps: dict[str, httpx.ASGITransport] = {}
        self.calls: list[httpx.Request] = []
        self.instead: dict[str, Callable[[httpx.Request], Any]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        for end, answer in self.instead.items():
            if str(request.url).endswith(end):
                given = answer(request)
                made = await given if inspect.isawaitable(given) else given
                # A response built from text counts as read already; one from a network does not.
                return httpx.Response(made.status_code, headers=made.headers, stream=made.stream)
        return await self.passed(request)

    async def passed(self, request: httpx.Request) -> httpx.Response:
        origin = f"{request.url.scheme}://{request.url.netloc.decode()}"
        return await self.apps[origin].handle_async_request(request)

    def to(self, end: str) -> int:
        return sum(str(call.url).endswith(end) for call in self.calls)


@dataclass
class Worlds:
    """All three issuers with one clock.  ``adult`` at the north provider is linked to ``parent-a``."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.ours, self.north, self.south, self.wire = Issuer(self.clock), Issuer(self.clock), Issuer(self.clock), Wire()
        self.ours.at(OURS, self.wire)
        self.north.at(NORTH)
        self.south.at(SOUTH)
        self.wire.apps = {NORTH: httpx.ASGITransport(self.north.app), SOUTH: httpx.ASGITransport(self.south.app)}
        self.callback = {name: identity_providers.redirect_uri(self.ours.smart, one) for name, one in FEDERATED.items()}
        ours = asyncio.run(signing_keys.jwks(self.ours.smart))
        self.north.registers(Client("us", "Us", "app", "client_secret", "openid", (self.callback["north"],), secret_hash=digest(SECRET)))
        self.south.registers(Client("us", "Us", "app", "private_key_jwt", "openid", (self.callback["south"],), jwks=ours))
        asyncio.run(self._federated())

    async def _federated(self) -> None:
        await identity_providers.add(self.ours.smart, FEDERATED["north"], SECRET)
        await identity_providers.add(self.ours.smart, FEDERATED["south"])
        await identity_providers.link(self.ours.store, NORTH, await self.subject(self.north, "adult"), "parent-a")

    async def subject(self, issuer: Issuer, username: str) -> str:
        found = await users.find(issuer.store, username)
        assert found is not None
        return found.subject

    # the steps of a sign-in

    def leave(self, provider: str = "north", browser: Browser | None = None, **way: str) -> httpx.Response:
        """Open the sign-in page and follow the provider's link."""
        browser = browser or self.ours.http
        page = browser.get("/sign-in", params=way).text
        path = f"/sign-in/with/{FEDERATED[provider].id}"
        assert path in page
        return browser.get(path, params=way)

    def left(self, provider: str = "north", **way: str) -> str:
        answer = self.leave(provider, **way)
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    def agreed(self, url: str, username: str = "adult", decision: str = "allow") -> str:
        """Sign in and decide at the provider.  Returns the URL to which the browser is redirected."""
        there = self.north if url.startswith(NORTH) else self.south
        there.http.cookies.clear()
        page = there.sign_in(there.follow(there.http.get(url)), username)
        return str(there.submit(page, decision=decision).headers["location"])

    def back(self, url: str, browser: Browser | None = None) -> httpx.Response:
        assert url.startswith(OURS), url
        return (browser or self.ours.http).get(url.removeprefix(OURS))

    def signed_in(self, provider: str = "north", username: str = "adult", **way: str) -> httpx.Response:
        return self.back(self.agreed(self.left(provider, **way), username))

    def who(self, browser: Browser | None = None) -> str:
        """The name of the signed-in user at ``ours``, "" without a session."""
        browser = browser or self.ours.http
        asked = {**self.ours.asked(scope="openid", aud=None), "nonce": "x"}
        page = self.ours.follow(browser.get("/oauth/authorize", params=asked))
        return page.text.partition("Signed in as ")[2].partition("<")[0]

    def forged(self, change: Callable[[dict[str, Any], dict[str, Any]], str | None]) -> None:
        """Make the north token endpoint return an id_token whose header and claims ``change`` modifies."""

        async def answer(request: httpx.Request) -> httpx.Response:
            real = await self.wire.passed(request)
            body = json.loads(await real.aread())
            header, claims = claims_of(body["id_token"])
            made = change(header, claims)
            body["id_token"] = made if made is not None else await self.signed(header, claims)
            return httpx.Response(200, json={name: value for name, value in body.items() if value != ""})

        self.wire.instead[f"{NORTH}/oauth/token"] = answer

    async def signed(self, header: dict[str, Any], claims: dict[str, Any], by: Issuer | None = None) -> str:
        """A token signed by the key of an issuer, by default the north provider."""
        kid, key = await signing_keys.current_key((by or self.north).smart, "RS256")
        return jwt.encode({"kid": kid} | header, claims, key, algorithms=["RS256"])

    def kept(self) -> str:
        """Everything that ``ours`` stores."""
        return repr(vars(self.ours.store)) + repr(vars(self.ours.store.key_values))

    def states(self) -> int:
        """The number of pending sign-ins."""
        return len(asyncio.run(self.ours.store.key_values.list_all("federation-state", self.clock())))


PASSWORD = demo.PASSWORD
__all__ = ["NORTH", "OURS", "PASSWORD", "SECRET", "SOUTH", "Page", "Worlds", "query"]
