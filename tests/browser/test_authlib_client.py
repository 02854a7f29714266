"""A web app with Authlib's client for Starlette, unchanged: discovery, sign-in with PKCE and nonce, renewal, userinfo, sign-out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from authlib.integrations.base_client import MismatchingStateError, OAuthError
from authlib.integrations.starlette_client import OAuth
from selenium.webdriver import Chrome
from starlette.requests import Request

from tests.browser.browser_session import Walk
from tests.browser.conftest import Command
from tests.browser.node_client import Callback, callback_server
from tests.browser.test_relying_parties import SCOPE, allowed

CLIENT = "web-diary"


class WebApp:
    """The two views of a web app, as Authlib's guide has them; ``session`` is the browser's session with the app."""

    def __init__(self, origin: str, secret: str, redirect_uri: str) -> None:
        self.session: dict[str, Any] = {}
        self._redirect_uri = redirect_uri
        self.client = OAuth().register(
            "server",
            client_id=CLIENT,
            client_secret=secret,
            server_metadata_url=f"{origin}/.well-known/openid-configuration",
            client_kwargs={"scope": SCOPE, "code_challenge_method": "S256"},
            authorize_params={"aud": f"{origin}/fhir"},
        )

    async def sign_in(self) -> str:
        answer = await self.client.authorize_redirect(self._request(), self._redirect_uri)
        return str(answer.headers["location"])

    async def callback(self, query: str) -> dict[str, Any]:
        token: dict[str, Any] = await self.client.authorize_access_token(self._request(query))
        return token

    async def userinfo(self, token: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = await self.client.userinfo(token=token)
        return found

    async def sign_out(self, token: dict[str, Any], back: str) -> str:
        answer = await self.client.logout_redirect(self._request(), back, token["id_token"], state="signed-out")
        return str(answer.headers["location"])

    async def renewed(self, token: dict[str, Any]) -> dict[str, Any]:
        metadata = await self.client.load_server_metadata()
        async with self.client._get_oauth_client(**metadata) as session:
            found: dict[str, Any] = await session.refresh_token(metadata["token_endpoint"], token["refresh_token"])
            return found

    def _request(self, query: str = "") -> Request:
        scope = {"type": "http", "method": "GET", "path": "/callback", "query_string": query.encode(), "headers": []}
        return Request(scope | {"session": self.session})


@contextmanager
def answered(chrome: Chrome, origin: str, command: Command) -> Iterator[tuple[WebApp, Callback]]:
    """The app, whose request a person has allowed, and its server."""
    with callback_server() as server:
        redirect = ("--redirect-uri", f"{server.origin}/callback", "--post-logout-redirect-uri", f"{server.origin}/left")
        secret = command("client", "add", CLIENT, "--name", "Web diary", "--method", "client_secret", "--scope", SCOPE, *redirect)
        app = WebApp(origin, secret.splitlines()[0], f"{server.origin}/callback")
        allowed(Walk.fresh(chrome, origin), asyncio.run(app.sign_in()))
        yield app, server
    command("client", "remove", CLIENT)


def test_smart_111_authlib_signs_in_reads_userinfo_renews_and_signs_out(chrome: Chrome, origin: str, command: Command) -> None:
    with answered(chrome, origin, command) as (app, server):
        token = asyncio.run(app.callback(urlsplit(server.next().url).query))
        assert token["userinfo"]["fhirUser"] == f"{origin}/fhir/Patient/adult" and token["patient"] == "adult"
        assert token["userinfo"]["nonce"] and token["userinfo"]["aud"] in (CLIENT, [CLIENT])
        assert asyncio.run(app.userinfo(token))["name"] == "Alex Adult"
        renewed = asyncio.run(app.renewed(token))
        assert renewed["access_token"] != token["access_token"]
        assert asyncio.run(app.userinfo(renewed))["sub"] == token["userinfo"]["sub"]
        chrome.get(asyncio.run(app.sign_out(renewed, f"{server.origin}/left")))
        assert server.next().url == f"{server.origin}/left?state=signed-out"
        chrome.get(f"{origin}/apps")
        Walk(chrome, origin).reached("/sign-in")


def test_smart_111_authlib_refuses_an_answer_to_another_request(chrome: Chrome, origin: str, command: Command) -> None:
    with answered(chrome, origin, command) as (app, server):
        app.session.clear()
        with pytest.raises((MismatchingStateError, OAuthError)):
            asyncio.run(app.callback(urlsplit(server.next().url).query))
