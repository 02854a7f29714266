"""A client's web server that publishes a JWKS and records the requests it receives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec

from fhir_server.smart.clients import clients
from fhir_server.web.public_fetch import Network
from tests.smart.environment import World, private_keys

URL = "https://app.example/jwks.json"
PUBLIC = "93.184.216.34"


class Site:
    """The client's web server: the response it sends, and the requests it received (``asked``)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.keys = private_keys(world.store, "demo-backend").as_dict(private=False)
        self.headers: dict[str, str] = {}
        self.status = 200
        self.body: bytes | None = None
        self.addresses: tuple[str, ...] = (PUBLIC,)
        self.asked: list[httpx.Request] = []
        self.use(URL)
        object.__setattr__(world.smart, "network", Network(self.resolve, httpx.MockTransport(self.answer)))

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        return self.addresses

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        body = json.dumps(self.keys).encode() if self.body is None else self.body
        return httpx.Response(self.status, stream=httpx.ByteStream(body), headers=self.headers)

    def use(self, url: str) -> None:
        found = asyncio.run(clients.find(self.world.store, "demo-backend"))
        assert found is not None
        asyncio.run(clients.save(self.world.store, msgspec.structs.replace(found, jwks={}, jwks_uri=url)))

    def works(self, **options: Any) -> bool:
        """Return whether the client gets a token with a new assertion."""
        self.number = getattr(self, "number", 0) + 1
        return self.world.backend(self.world.assertion(jti=f"n{self.number}", **options)).status_code == 200


def mode(world: World, name: str) -> None:
    object.__setattr__(world.smart, "mode", name)
