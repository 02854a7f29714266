"""Guessing of the secrets and tokens of apps."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from fhir_server.smart import demo
from fhir_server.smart.clients import clients
from fhir_server.smart.core.context import MINUTE
from fhir_server.smart.tokens.failure_limit import MAX_FAILURES
from tests.smart.environment import World

CONFIDENTIAL = ("demo-confidential", demo.SECRET)


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
def test_client_secret_guessing_returns_429_per_ip_for_one_minute(world: World, path: str) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x", "token": "x"}
    statuses = [world.http.post(path, data=form, auth=(CONFIDENTIAL[0], f"guess-{n}")).status_code for n in range(MAX_FAILURES)]
    assert set(statuses) == {401}
    slowed = world.http.post(path, data=form, auth=CONFIDENTIAL)
    assert (slowed.status_code, slowed.headers["retry-after"], slowed.json()["error"]) == (429, "60", "temporarily_unavailable")
    assert _elsewhere(world, path, form).status_code != 429, "the app itself is at another address"
    world.clock.forward(MINUTE)
    assert world.http.post(path, data=form, auth=CONFIDENTIAL).status_code in (200, 400)


def _elsewhere(world: World, path: str, form: dict[str, str]) -> httpx.Response:
    async def sent() -> httpx.Response:
        transport = httpx.ASGITransport(world.app, client=("10.9.9.9", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.post(path, data=form, auth=CONFIDENTIAL)

    return asyncio.run(sent())


def test_client_secret_guessing_limit_ignores_valid_credentials(world: World) -> None:
    for _ in range(MAX_FAILURES + 1):
        assert world.post("/oauth/introspect", CONFIDENTIAL, token="garbage").json() == {"active": False}
    assert world.post("/oauth/token", CONFIDENTIAL, grant_type="refresh_token", refresh_token="x").status_code == 400


@pytest.mark.parametrize("header", ["Bearer x", "Bearer ", "Basic eDp4", ""])
def test_introspection_guessing_without_credentials_returns_401(world: World, header: str) -> None:
    token = world.tokens()["access_token"]
    answer = world.http.post("/oauth/introspect", data={"token": token}, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert "active" not in answer.text
    assert world.post("/oauth/introspect", CONFIDENTIAL, token=token).json()["active"] is True


def test_initial_access_token_guessing_returns_identical_401(world: World) -> None:
    object.__setattr__(world.smart, "mode", "production")
    metadata = {"client_name": "Heart diary", "redirect_uris": ["https://app.example/cb"]}
    answers = [world.http.post("/oauth/register", json=metadata, headers={"Authorization": f"Bearer guess{n}"}) for n in range(5)]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, world.http.post("/oauth/register", json=metadata).text)}
    assert len(asyncio.run(clients.list_all(world.store))) == len(demo.CLIENTS)
