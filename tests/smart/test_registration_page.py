"""``/register-app``: client registration through a form."""

from __future__ import annotations

import asyncio
import re

import pytest

from fhir_server.smart.clients import initial_access_tokens
from tests.smart.environment import Page, World
from tests.smart.registration_helpers import REDIRECT, find, production


def test_register_page_creates_a_client_and_shows_its_secret(world: World) -> None:
    page = world.http.get("/register-app")
    answer = world.submit(page, name="Heart diary", redirects=REDIRECT, homepage="", method="client_secret_basic")
    assert answer.status_code == 200
    client_id = re.search(r"app-[A-Za-z0-9_-]{22}", answer.text)
    assert client_id
    kept = find(world, client_id[0])
    assert kept is not None
    secret = re.search(r"Client secret</dt><dd><code>([^<]+)<", answer.text)
    assert secret and kept.matches_secret(secret[1])
    assert "no-store" in answer.headers["cache-control"]
    given = {"client_id": client_id[0], "redirect_uri": REDIRECT, "scope": kept.scopes.replace(" launch ", " ")}
    assert world.exchange(world.code(**given), (client_id[0], secret[1]), redirect_uri=REDIRECT).status_code == 200


def test_register_page_shows_the_error_and_keeps_the_input(world: World) -> None:
    page = world.http.get("/register-app")
    answer = world.submit(page, name="Demo phone app", redirects='https://app.example/"><script>', homepage="", method="none")
    assert answer.status_code == 400
    assert "There is a problem" in answer.text
    assert "Demo phone app" in answer.text
    assert "<script>" not in answer.text


@pytest.mark.parametrize(
    ("field", "typed", "words"),
    [
        ("name", "Xy", "a name of 3 to 60 characters"),
        ("name", "A" * 61, "a name of 3 to 60 characters"),
        ("name", "Demo phone app", "too similar to"),
        ("redirects", " ", "one to ten different redirect URIs"),
        ("redirects", f"{REDIRECT}\n{REDIRECT}", "one per line"),
        ("redirects", "http://app.example/", "redirect URI must be https"),
        ("homepage", "app.example", "for example https://app.example"),
        ("method", "elsewhere", "Choose where the app runs"),
        ("scope", "", "Select at least one permission"),
    ],
)
def test_register_page_errors_use_plain_language(world: World, field: str, typed: str, words: str) -> None:
    fields = {"name": "Heart diary", "redirects": REDIRECT, "homepage": "https://app.example", "method": "none"}
    answer = world.submit(world.http.get("/register-app"), **fields | {field: typed})
    problem = answer.text.partition('role="alert"')[2].partition("</div>")[0]
    assert (answer.status_code, words in problem) == (400, True)
    assert not re.search(r"RFC|minLength|client_uri|redirect_uris", problem)


def test_csrf_register_form_of_another_browser_returns_403(world: World) -> None:
    form = {"name": "Heart diary", "redirects": REDIRECT, "method": "none", "token": "x", "scope": "patient/*.rs"}
    assert world.http.post("/register-app", data=form).status_code == 403
    page = world.http.get("/register-app")
    assert world.browser().post("/register-app", data=form | {"token": dict(Page(page.text).sent)["token"]}).status_code == 403


def test_production_register_page_needs_a_registration_code(world: World) -> None:
    production(world)
    page = world.http.get("/register-app")
    fields = {"name": "Heart diary", "redirects": REDIRECT, "homepage": "", "method": "none"}
    assert "Registration code" in page.text
    for wrong in ("", "wrong"):
        assert world.submit(page, invitation=wrong, **fields).status_code == 400
    token = asyncio.run(initial_access_tokens.issue(world.store, world.clock()))
    assert world.submit(page, invitation=token, **fields).status_code == 200
    assert world.submit(page, invitation=token, **fields | {"name": "Lung diary"}).status_code == 400
