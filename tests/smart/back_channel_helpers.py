"""Helpers for the tests of logout: an app's server that receives logout tokens, and the queue of a test server."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from fhir_server.smart.tokens import back_channel
from tests.outside_server import OutsideServer
from tests.smart.environment import World

BACK = "https://app.example/signed-out?a=1"
CHANNEL = "https://app.example/logout"


class Receiver(OutsideServer):
    """An app's server, which receives logout tokens."""

    def __init__(self, world: World, *statuses: int) -> None:
        super().__init__(world.smart, *statuses)

    @property
    def hosts(self) -> list[str]:
        return [request.headers["host"] for request in self.requests]

    @property
    def tokens(self) -> list[str]:
        return [dict(parse_qsl(request.content.decode()))["logout_token"] for request in self.requests]


def tell(world: World) -> None:
    """Do what the server's task does at each look."""
    asyncio.run(back_channel.tell_due(world.smart))
