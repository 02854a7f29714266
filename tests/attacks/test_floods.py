"""Floods of requests: each door has a limit for one address, and holds up nobody else."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from joserfc.jwk import KeySet

from fhir_server.smart import demo
from fhir_server.smart.authorize.endpoint import PER_ADDRESS as REQUESTS
from fhir_server.smart.clients.jwks_cache import MIN_REFETCH_INTERVAL, JwksCache
from fhir_server.smart.clients.registration_routes import MAX_REGISTRATIONS_PER_HOUR
from fhir_server.smart.core.context import HOUR, MINUTE, SECOND
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.federation.pages import PER_ADDRESS as DEPARTURES
from fhir_server.store import open_store
from fhir_server.web import public_fetch
from tests.attacks.guesses import tried
from tests.federation.environment import FEDERATED, Worlds
from tests.smart.environment import ASSERTION_TYPE, ORIGIN, Page, World
from tests.smart.jwks_server import Site
from tests.waiting import HANG, until


def test_flood_limit_counts_an_ipv6_64_network_as_one_address() -> None:
    limit, values = RateLimit("a limit", 3, MINUTE), open_store("memory:").key_values
    values.now = lambda: 0

    def taken(*addresses: str) -> list[int]:
        return [asyncio.run(limit.take(values, address, 0)) for address in addresses]

    assert taken(*(f"2001:db8::{number}" for number in range(1, 6))) == [0, 0, 0, MINUTE, MINUTE]
    assert retry_after(MINUTE) == {"Retry-After": "60"}
    assert taken(*(f"192.0.2.{number}" for number in range(1, 9))) == [0] * 8  # the controls
    assert taken("2001:db8:0:1::1", "::ffff:198.51.100.7", "") == [0] * 3


def test_flood_of_authorization_requests_returns_temporary_429(world: World) -> None:
    answers = [world.authorize().status_code for _ in range(REQUESTS)]
    assert set(answers) == {303}
    world.clock.forward(MINUTE // 2)
    refused = world.authorize()
    assert (refused.status_code, "location" in refused.headers, refused.headers["retry-after"]) == (429, False, "30")
    kept = len(asyncio.run(world.store.key_values.list_all("request", world.clock())))
    assert kept == REQUESTS
    world.clock.forward(MINUTE // 2)
    assert world.authorize().status_code == 303


def test_flood_of_sign_ins_returns_temporary_429(world: World, quick: None) -> None:
    """Over the rate no password is looked at, whosever turn it is."""
    form = dict(Page(world.http.get("/sign-in").text).sent) | {"username": "nobody", "password": "x"}
    answers = [world.http.post("/sign-in", data=form) for _ in range(REQUESTS)]
    assert not [answer for answer in answers if "Too many sign-ins" in answer.text]
    refused = world.http.post("/sign-in", data=form)
    assert (refused.status_code, "Too many sign-ins" in refused.text, refused.headers["retry-after"]) == (429, True, "60")
    world.clock.forward(MINUTE)
    assert tried(world, world.browser(), "adult", demo.PASSWORD)


def test_flood_of_registrations_returns_temporary_429(world: World) -> None:
    for number in range(MAX_REGISTRATIONS_PER_HOUR):
        name = f"Diary {chr(97 + number % 26)}{chr(97 + number // 26)} {number}"
        metadata = {"client_name": name, "redirect_uris": ["https://app.example/cb"]}
        assert world.http.post("/oauth/register", json=metadata).status_code == 201
    refused = world.http.post("/oauth/register", json=metadata)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3600")
    form = dict(Page(world.http.get("/register-app").text).sent) | {"name": "One more", "redirects": "https://a.example/", "method": "none"}
    page = world.http.post("/register-app", data=form)
    assert (page.status_code, page.headers["retry-after"]) == (429, "3600")
    world.clock.forward(HOUR)
    assert world.http.post("/register-app", data=form | {"scope": "patient/*.rs"}).status_code == 200


def test_flood_of_provider_redirects_returns_temporary_429(worlds: Worlds) -> None:
    """Each stores a record and sends a request to the provider, so the server must not be used to flood it."""
    worlds.ours.http.get("/sign-in")
    path = f"/sign-in/with/{FEDERATED['north'].id}"
    assert {worlds.ours.http.get(path).status_code for _ in range(DEPARTURES)} == {303}
    asked = len(worlds.wire.calls)
    refused = worlds.ours.http.get(path)
    assert (refused.status_code, refused.headers["retry-after"], len(worlds.wire.calls)) == (429, "60", asked)
    worlds.clock.forward(60 * SECOND)
    assert worlds.ours.http.get(path).status_code == 303


def test_flood_of_assertions_with_slow_jwks_blocks_no_other_request(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty concurrent requests of a client whose server does not answer do not delay sign-ins and refreshes."""
    world, given_up = site.world, asyncio.Event()
    asked: list[str] = []
    wanting: list[str] = []
    keys = JwksCache.keys

    async def silent(host: str, port: int) -> tuple[str, ...]:
        asked.append(host)
        await given_up.wait()
        return ()

    async def counted(self: JwksCache, url: str, kid: str) -> KeySet:
        wanting.append(kid)
        return await keys(self, url, kid)

    monkeypatch.setattr(JwksCache, "keys", counted)
    monkeypatch.setattr(public_fetch, "DEADLINE", HANG)  # the test decides when the wait is over
    object.__setattr__(world.smart, "network", public_fetch.Network(silent))
    assertions = [world.assertion(jti=f"flood-{number}") for number in range(60)]
    forms = [{"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE, "client_assertion": one} for one in assertions]
    token = world.tokens()["refresh_token"]
    refresh = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "demo-public"}

    async def flooded() -> tuple[int, int, set[int]]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN) as client:
            flood = [asyncio.create_task(client.post("/oauth/token", data=form)) for form in forms]
            await until(lambda: len(wanting) == len(forms), "every assertion waits for the keys")
            answer = await asyncio.wait_for(client.post("/oauth/token", data=refresh), HANG)
            waiting = sum(not one.done() for one in flood)
            given_up.set()
            return answer.status_code, waiting, {one.status_code for one in await asyncio.gather(*flood)}

    status, waiting, refused = asyncio.run(flooded())
    assert (status, waiting, refused) == (200, len(forms), {400})  # the honest app waited for none of them
    assert len(asked) == 1  # one wait for all of them, not one after the other
    Site(world)
    world.clock.forward(MIN_REFETCH_INTERVAL)
    assert world.backend(world.assertion(jti="after")).status_code == 200  # the control
