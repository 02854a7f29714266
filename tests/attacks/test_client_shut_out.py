"""Nobody shuts out a client by failing at the same network address: only guesses count, by client and address."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from fhir_server.smart import demo
from fhir_server.smart.core.context import MINUTE
from fhir_server.smart.tokens.failure_limit import MAX_FAILURES
from tests.smart.environment import ASSERTION_TYPE, ORIGIN, World

CONFIDENTIAL = ("demo-confidential", demo.SECRET)
ROUNDS, WIDTH = 20, 16


def test_shut_out_losers_of_a_race_with_one_assertion_do_not_count(world: World) -> None:
    async def race(form: dict[str, str]) -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN) as client:
            return [answer.status_code for answer in await asyncio.gather(*(client.post("/oauth/token", data=form) for _ in range(WIDTH)))]

    for _ in range(ROUNDS):
        form = {"grant_type": "client_credentials", "scope": "system/*.rs", "client_assertion_type": ASSERTION_TYPE}
        statuses = asyncio.run(race(form | {"client_assertion": world.assertion()}))
        assert (statuses.count(200), statuses.count(400)) == (1, WIDTH - 1)
        world.clock.forward(1)
    assert asyncio.run(world.store.key_values.list_all("rate-limit", 0)) == ()


def test_shut_out_by_forged_assertions_fails(world: World) -> None:
    forged = world.assertion(jti="forged")[:-8] + "AAAAAAAA"
    statuses = [world.backend(forged).status_code for _ in range(MAX_FAILURES + 5)]
    assert statuses == [400] * MAX_FAILURES + [429] * 5
    assert world.backend().status_code == 200


@pytest.mark.parametrize("client_id", ["demo-confidential", "nobody", ""])
def test_shut_out_by_wrong_secrets_of_another_client_fails(world: World, client_id: str) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    statuses = [world.post("/oauth/token", (client_id, "wrong"), **form).status_code for _ in range(MAX_FAILURES + 1)]
    assert statuses == [401] * MAX_FAILURES + [429]
    assert world.backend().status_code == 200
    assert world.refresh(world.tokens()["refresh_token"]).status_code == 200
    right = world.post("/oauth/token", CONFIDENTIAL, **form).status_code
    assert right == (429 if client_id == "demo-confidential" else 400)


def test_guessing_with_other_spellings_of_a_client_id_is_limited(world: World) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    for number in range(MAX_FAILURES):
        name = ("demo-confidential", "demo%2Dconfidential", "%64emo-confidential")[number % 3]
        assert world.post("/oauth/token", (name, "wrong"), **form).status_code == 401
    assert world.post("/oauth/token", CONFIDENTIAL, **form).status_code == 429
    in_the_form = form | {"client_id": CONFIDENTIAL[0], "client_secret": CONFIDENTIAL[1]}
    assert world.post("/oauth/token", **in_the_form).status_code == 429
    world.clock.forward(MINUTE)
    assert world.post("/oauth/token", **in_the_form).status_code == 400


def test_guessing_names_of_clients_is_limited_and_fills_no_store(world: World) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    statuses = [world.post("/oauth/token", (f"client-{number}", "x"), **form).status_code for number in range(MAX_FAILURES + 5)]
    assert statuses == [401] * MAX_FAILURES + [429] * 5
    assert len(asyncio.run(world.store.key_values.list_all("rate-limit", 0))) == 1
