"""Authorization requests of people who have not signed in store little, soon expire, and are limited by address."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from fhir_server.smart.authorize import endpoint
from fhir_server.smart.core.context import MINUTE, PARKED_LIFE, REQUEST_LIFE, digest
from fhir_server.smart.core.rate_limits import VolumeLimit
from fhir_server.smart.routes import router
from fhir_server.smart.tokens import request_limits
from fhir_server.store import Store
from fhir_server.web.forms import local_path
from tests.smart.environment import Browser, Page, World, query
from tests.store.conftest import RunScenario, run

__all__ = ["run"]
LONG = "s" * 3_900


def parked(world: World) -> int:
    """The bytes of all stored requests."""
    return sum(len(value) for _, value in asyncio.run(world.store.key_values.list_all("request", world.clock())))


def ask(world: World, **changed: str) -> httpx.Response:
    return world.http.post("/oauth/authorize", data=world.asked() | changed)


@pytest.mark.parametrize(("name", "size"), [("nonce", 1_001), ("aud", 501), ("prompt", 501), ("code_challenge_method", 501)])
def test_parked_requests_long_parameter_is_an_error_for_the_app(world: World, name: str, size: int) -> None:
    answer = ask(world, **{name: "x" * size})
    assert answer.status_code == 302
    sent = query(answer.headers["location"])
    assert (sent["error"], sent["state"]) == ("invalid_request", world.asked()["state"])
    assert parked(world) == 0


@pytest.mark.parametrize("name", ["state", "client_id", "redirect_uri"])
def test_parked_requests_unanswerable_error_is_a_page(world: World, name: str) -> None:
    answer = ask(world, **{name: "x" * 60_000})
    assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert parked(world) == 0


def test_parked_requests_long_state_in_the_limit_is_returned(world: World) -> None:
    on = world.sign_in(world.follow(ask(world, state=LONG)), "adult")
    assert query(world.submit(world.submit(on, patient="adult"), decision="deny").headers["location"])["state"] == LONG


def test_parked_requests_last_for_a_person_who_signs_in(world: World) -> None:
    def is_kept() -> bool:
        return asyncio.run(world.store.key_values.get("request", digest(handle), world.clock())) is not None

    page = world.follow(ask(world))
    handle = dict(Page(page.text).sent)["request"]
    world.clock.forward(PARKED_LIFE)
    assert not is_kept()
    page = world.follow(ask(world))
    handle = dict(Page(page.text).sent)["request"]
    world.clock.forward(PARKED_LIFE - 1)
    assert Page(world.sign_in(page, "adult").text).radios
    world.clock.forward(REQUEST_LIFE - PARKED_LIFE)
    assert is_kept()
    world.clock.forward(1)
    assert not is_kept()


def test_parked_requests_of_an_address_have_a_megabyte(world: World) -> None:
    other = FastAPI(routes=list(router(world.smart).routes))
    statuses = set()
    for _ in range(8):
        for _ in range(endpoint.PER_ADDRESS // 2):
            for browser in (world.http, Browser(other)):  # two processes count together
                statuses.add(browser.post("/oauth/authorize", data=world.asked() | {"state": LONG}).status_code)
        world.clock.forward(MINUTE + 1)
    assert statuses == {303, 429}
    assert request_limits.BYTES_PER_ADDRESS * 0.9 < parked(world) < request_limits.BYTES_PER_ADDRESS * 1.2
    refused = ask(world, state=LONG)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) <= 120
    world.clock.forward(2 * MINUTE)
    assert ask(world).status_code == 303


def test_parked_requests_of_a_house_are_not_limited_by_bytes(world: World) -> None:
    for _ in range(request_limits.WINDOW // MINUTE):
        assert {ask(world).status_code for _ in range(endpoint.PER_ADDRESS)} == {303}
        world.clock.forward(MINUTE)


def test_parked_requests_are_counted_once_by_all_processes(run: RunScenario) -> None:
    async def scenario(store: Store) -> None:
        store.key_values.now = lambda: 10
        limits = [VolumeLimit("test", 1_000, 100) for _ in range(8)]
        taken = await asyncio.gather(*(limits[number % 8].take(store.key_values, "192.0.2.1", 100, 10) for number in range(16)))
        assert taken.count(0) == 10
        assert set(taken) == {0, 100}
        assert await limits[0].take(store.key_values, "192.0.2.2", 1_000, 10) == 0
        store.key_values.now = lambda: 110
        assert await limits[0].take(store.key_values, "192.0.2.1", 1_000, 110) == 0

    run(scenario)


def test_parked_requests_store_no_long_path() -> None:
    assert local_path("/ehr?" + "x" * 100) != "/"
    assert local_path("/ehr?" + "x" * 60_000) == "/"
