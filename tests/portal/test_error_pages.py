"""Errors outside the FHIR API: a page for browsers, an OAuth error for programs."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from fhir_server.app import application
from fhir_server.settings import Settings
from fhir_server.smart.accounts import sessions

PERSON = {"accept": "text/html,application/xhtml+xml"}


def ask(path: str, headers: dict[str, str]) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(application(Settings(store="memory:", mode="test")), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(asked())


def test_unknown_url_returns_404_as_page_or_oauth_error() -> None:
    page = ask("/no-such-page", PERSON)
    assert page.status_code == 404 and "Page not found" in page.text and "<h1>" in page.text
    answer = ask("/no-such-page", {})
    assert answer.status_code == 404 and answer.json()["error"] == "invalid_request"
    assert ask("/", PERSON).status_code == 200


def test_unsupported_method_returns_405_with_allow_header() -> None:
    page = ask("/oauth/token", PERSON)
    assert page.status_code == 405 and "<h1>" in page.text and "POST" in page.headers["allow"]


def test_server_error_page_hides_details(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError("the secret of the store")

    monkeypatch.setattr(sessions, "current", fails)
    page = ask("/", PERSON)
    assert page.status_code == 500 and "Something went wrong on our side" in page.text and "secret" not in page.text
