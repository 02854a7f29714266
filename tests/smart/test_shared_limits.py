"""Rate limits are counted in the store: all server processes share them, and a store that cannot count refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fhir_server.errors import Problem
from fhir_server.smart import demo
from fhir_server.smart.accounts import password_pages, sign_in_rate
from fhir_server.smart.authorize import endpoint
from fhir_server.smart.clients.jwks_cache import MAX_FETCHES_PER_MINUTE
from fhir_server.smart.clients.registration_routes import MAX_REGISTRATIONS_PER_HOUR
from fhir_server.smart.core.context import HOUR, MINUTE
from fhir_server.smart.core.rate_limits import RateLimit
from fhir_server.smart.error_pages import busy_handler
from fhir_server.smart.routes import router
from fhir_server.smart.tokens.failure_limit import MAX_FAILURES
from fhir_server.store import Store
from tests.served import Served
from tests.smart.environment import Browser, Page, World
from tests.smart.jwks_server import Site
from tests.store.conftest import RunScenario, run

__all__ = ["run"]
CONFIDENTIAL = ("demo-confidential", demo.SECRET)


def another_process(world: World) -> Browser:
    """A browser at another server on the same store."""
    app = FastAPI(routes=list(router(world.smart).routes))
    app.add_exception_handler(Problem, busy_handler(world.smart))
    return Browser(app)


def sign_in(browser: Browser, _: World) -> httpx.Response:
    form = dict(Page(browser.get("/sign-in").text).sent)
    return browser.post("/sign-in", data=form | {"username": "nobody", "password": "wrong"})


def authorize(browser: Browser, world: World) -> httpx.Response:
    return browser.get("/oauth/authorize", params=world.asked())


def register(browser: Browser, _: World) -> httpx.Response:
    return browser.post("/oauth/register", json={"client_name": "A diary", "redirect_uris": ["http://bad.example/"]})


def set_password(browser: Browser, _: World) -> httpx.Response:
    form = dict(Page(browser.get("/set-password").text).sent)
    return browser.post("/set-password", data=form | {"username": "nobody", "code": "x", "new": "y", "again": "z"})


def provider(browser: Browser, _: World) -> httpx.Response:
    return browser.get("/sign-in/with/none")


def guess(browser: Browser, _: World) -> httpx.Response:
    return browser.post("/oauth/introspect", data={"token": "x"}, auth=("demo-confidential", "guess"))


LIMITED: list[tuple[Callable[[Browser, World], httpx.Response], int]] = [
    (authorize, endpoint.PER_ADDRESS),
    (register, MAX_REGISTRATIONS_PER_HOUR),
    (set_password, password_pages.PER_ADDRESS),
    (provider, 60),
    (guess, MAX_FAILURES),
]


@pytest.mark.parametrize(("ask", "most"), LIMITED)
def test_limit_is_shared_by_all_processes(world: World, ask: Callable[[Browser, World], httpx.Response], most: int) -> None:
    browsers = world.browser(), another_process(world)
    statuses = [ask(browsers[number % 2], world).status_code for number in range(most)]
    assert 429 not in statuses
    assert [ask(browser, world).status_code for browser in browsers] == [429, 429]
    world.clock.forward(HOUR)
    assert [ask(browser, world).status_code for browser in browsers] == statuses[:2]


def test_limit_of_sign_ins_is_shared_by_all_processes(world: World) -> None:
    browsers = world.browser(), another_process(world)
    answers = [sign_in(browsers[number % 2], world) for number in range(sign_in_rate.PER_ADDRESS)]
    assert not [answer for answer in answers if "Too many sign-ins" in answer.text]
    assert all("Too many sign-ins" in sign_in(browser, world).text for browser in browsers)
    world.clock.forward(MINUTE)
    assert "Too many sign-ins" not in sign_in(browsers[0], world).text


def test_limit_of_key_fetches_is_shared_by_all_processes(world: World) -> None:
    site = Site(world)
    site.headers = {"cache-control": "no-store"}
    for number in range(MAX_FETCHES_PER_MINUTE + 10):
        if number == MAX_FETCHES_PER_MINUTE // 2:
            world.open()  # a new process has an empty cache
        site.works(header={"kid": "made-up"})
    assert len(site.asked) == MAX_FETCHES_PER_MINUTE


def test_parallel_requests_are_counted_exactly(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        store.key_values.now = lambda: 10
        processes = [RateLimit("a limit", 20, MINUTE) for _ in range(4)]
        waits = await asyncio.gather(*(processes[n % 4].take(store.key_values, "192.0.2.1", 10) for n in range(48)))
        assert waits.count(0) == 20 and waits.count(MINUTE) == 28
        assert await processes[0].take(store.key_values, "192.0.2.1", 10, "another client") == 0
        assert await processes[0].wait(store.key_values, "192.0.2.1", 10) == MINUTE

    run(scenario)


def test_window_of_a_limit_slides_and_its_record_is_removed(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        limit, values, now = RateLimit("a limit", 3, 100), store.key_values, 0
        values.now = lambda: now
        taken = []
        for now in (0, 40, 80, 90, 100, 101, 140):
            taken.append(await limit.take(values, "192.0.2.1", now))
        assert taken == [0, 0, 0, 10, 0, 39, 0]
        assert len(await values.list_all("rate-limit", 0)) == 1
        await values.purge(239)
        assert len(await values.list_all("rate-limit", 0)) == 1
        await values.purge(240)
        assert await values.list_all("rate-limit", 0) == ()

    run(scenario)


def test_refused_request_writes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {guess(world.http, world).status_code for _ in range(MAX_FAILURES)} == {401}
    written: list[str] = []

    async def write(kind: str, *rest: Any) -> bool:
        written.append(kind)
        return True

    for name in ("put", "put_if_absent", "replace_value", "pop"):
        monkeypatch.setattr(world.store.key_values, name, write)
    assert guess(world.http, world).status_code == 429
    assert written == []


def test_request_to_the_fhir_api_counts_nothing_in_the_store() -> None:
    served = Served(seeds=False)
    token, values = served.token(), served.parts.store.key_values
    before = {kind: served.run(values.list_all(kind, 0)) for kind in ("rate-limit", "attempt")}
    assert served.get(token, "Patient").status == 200
    assert served.get(None, "Patient").status == 401
    assert {kind: served.run(values.list_all(kind, 0)) for kind in before} == before == {"rate-limit": (), "attempt": ()}
    served.close()


@pytest.mark.parametrize("ask", [sign_in, authorize, guess, set_password, provider])
def test_limit_that_cannot_be_counted_refuses_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ask: Callable[[Browser, World], httpx.Response]
) -> None:
    browser, kept = another_process(world), world.store.key_values.put_if_absent

    async def busy(kind: str, *rest: Any) -> bool:
        if kind == "rate-limit":
            raise Problem("busy", "Nothing can be written at the moment.")
        return await kept(kind, *rest)

    monkeypatch.setattr(world.store.key_values, "put_if_absent", busy)
    answer = ask(browser, world)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert "cannot be counted" in caplog.text
