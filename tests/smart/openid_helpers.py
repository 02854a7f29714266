"""Helpers for the tests of OpenID Connect: change a demo client's registration, ask silently, read a form-post page."""

from __future__ import annotations

import asyncio
from html.parser import HTMLParser
from typing import Any

import httpx
import msgspec

from fhir_server.smart.clients import clients
from fhir_server.smart.clients.options import ClientOptions
from tests.smart.environment import World, query

PLAIN = "openid profile fhirUser offline_access"
"""The scopes of an OpenID client that knows nothing of FHIR."""


def change_client(world: World, client_id: str = "demo-public", **changes: Any) -> None:
    """Replace members of a registration."""

    async def change() -> None:
        client = await clients.find(world.store, client_id)
        assert client is not None
        await clients.save(world.store, msgspec.structs.replace(client, **changes))

    asyncio.run(change())


def set_options(world: World, client_id: str = "demo-public", **options: Any) -> None:
    """Give a client these options, and no others."""
    change_client(world, client_id, options=ClientOptions(**options))


def allow_profile(world: World, client_id: str = "demo-public") -> None:
    """Let a demo client request the scope ``profile``, too."""
    client = asyncio.run(clients.find(world.store, client_id))
    assert client is not None
    change_client(world, client_id, scopes=f"{client.scopes} profile")


def silent(world: World, **changes: str | None) -> dict[str, str]:
    """The parameters of the response to ``prompt=none`` in this browser."""
    answer = world.authorize(prompt="none", **changes)
    assert answer.status_code == 302, answer.text
    return query(answer.headers["location"])


class PostedForm(HTMLParser):
    """The form of a page that posts an authorization response: its target and fields."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.scripts: list[str] = []
        self.buttons = 0
        self._in_script = False
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._in_script = tag == "script"
        self.buttons += tag == "button"
        if tag == "form":
            self.action = given["action"] or ""
        elif tag == "input":
            self.fields[given["name"] or ""] = given["value"] or ""

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False
