"""Helpers for the tests of logout: an app's server that receives logout tokens, and the queue of a test server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import parse_qsl

import httpx

from fhir_server.smart.tokens import back_channel
from fhir_server.web.public_fetch import Network
from tests.smart.environment import World

BACK = "https://app.example/signed-out?a=1"
CHANNEL = "https://app.example/logout"


class Receiver:
    """An app's server: the logout tokens it received, and the statuses with which it answers."""

    def __init__(self, world: World, *statuses: int) -> None:
        self.statuses, self.requests = list(statuses), []  # type: list[int], list[httpx.Request]
        self.address = "93.184.216.34"
        object.__setattr__(world.smart, "network", Network(self.resolve, httpx.MockTransport(self.answer)))

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        return (self.address,)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status = self.statuses.pop(0) if self.statuses else 200
        if not status:
            raise httpx.ConnectError("down")
        return httpx.Response(status)

    @property
    def hosts(self) -> list[str]:
        return [request.headers["host"] for request in self.requests]

    @property
    def tokens(self) -> list[str]:
        return [dict(parse_qsl(request.content.decode()))["logout_token"] for request in self.requests]


def tell(world: World) -> None:
    """Do what the server's task does at each look."""
    asyncio.run(back_channel.tell_due(world.smart))
