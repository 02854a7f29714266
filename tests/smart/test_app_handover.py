"""The page that leads a browser from a form of the server on to an app."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpx

from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.context import MINUTE
from tests.smart.environment import Page, Refresh, World, _grouped, query


def _answered(world: World, page: httpx.Response, **choice: str) -> httpx.Response:
    """The server's own answer to the consent form."""

    async def sent() -> httpx.Response:
        transport = httpx.ASGITransport(world.app)
        async with httpx.AsyncClient(transport=transport, base_url=world.smart.origin, cookies=world.http.cookies) as client:
            return await client.post("/oauth/consent", data=_grouped([*Page(page.text).sent, *choice.items()]))

    return asyncio.run(sent())


def _policy(response: httpx.Response) -> str:
    return response.headers["content-security-policy"].partition("form-action ")[2]


def test_form_ends_at_own_page_that_opens_the_app_by_get(world: World) -> None:
    consent = world.consent_page()
    assert _policy(consent) == "'self'"
    answer = _answered(world, consent, decision="allow")
    assert answer.status_code == 303 and answer.headers["location"].startswith("/to-app?page=")
    page = world.http.get(answer.headers["location"])
    url = Refresh(page.text).url
    assert url.startswith("http://127.0.0.1:8765/callback?code=") and "Demo phone app" in Page(page.text).text
    assert page.headers["cache-control"] == "no-store" and page.headers["referrer-policy"] == "no-referrer"
    assert world.exchange(query(url)["code"]).status_code == 200


def test_denial_leads_back_by_the_same_page(world: World) -> None:
    page = world.http.get(_answered(world, world.consent_page(), decision="deny").headers["location"])
    assert query(Refresh(page.text).url)["error"] == "access_denied"


def test_page_shows_the_code_once_in_its_browser_for_a_minute(world: World) -> None:
    address = _answered(world, world.consent_page(), decision="allow").headers["location"]
    assert world.browser().get(address).status_code == 400
    assert world.http.get(address).status_code == 200
    again = world.http.get(address)
    assert again.status_code == 400 and "code=" not in again.text and "already gone on" in again.text
    late = _answered(world, world.consent_page(), decision="allow").headers["location"]
    world.clock.forward(MINUTE)
    assert world.http.get(late).status_code == 400


def test_code_on_its_way_is_not_stored_in_plain_text(world: World) -> None:
    address = _answered(world, world.consent_page(), decision="allow").headers["location"]
    stored = asyncio.run(world.store.key_values.list_all("to-app", world.clock()))
    assert len(stored) == 1
    code = query(Refresh(world.http.get(address).text).url)["code"].encode()
    handle = query(address)["page"].encode()
    assert not any(secret in key.encode() + value for key, value in stored for secret in (code, handle))


def test_app_on_the_device_is_opened_directly(world: World) -> None:
    redirect = "com.example.app:/callback"
    app = Client("native", "Native app", "app", "none", "patient/*.rs launch/patient openid", redirect_uris=(redirect,))
    asyncio.run(clients.save(world.store, app))
    consent = world.consent_page(client_id="native", redirect_uri=redirect, scope="launch/patient patient/*.rs")
    assert _policy(consent) == "'self' com.example.app:"
    answer = _answered(world, consent, decision="allow")
    assert urlsplit(answer.headers["location"]).scheme == "com.example.app" and query(answer.headers["location"])["code"]
