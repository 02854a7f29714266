"""Helpers for registration tests: register an app, and find the stored client."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from tests.smart.environment import ORIGIN, World

REDIRECT = "https://app.example/callback"
METADATA = {"client_name": "Heart diary", "redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"}


def post(world: World, token: str = "", **changes: Any) -> httpx.Response:
    body = {name: value for name, value in (METADATA | changes).items() if value is not None}
    return world.http.post("/oauth/register", json=body, headers=bearer(token))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def made(world: World, **changes: Any) -> dict[str, Any]:
    answer = post(world, **changes)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def find(world: World, client_id: str) -> Client | None:
    return asyncio.run(clients.find(world.store, client_id))


def path(told: dict[str, Any]) -> str:
    return str(told["registration_client_uri"]).removeprefix(ORIGIN)


def production(world: World) -> None:
    object.__setattr__(world.smart, "mode", "production")
