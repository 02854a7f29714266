"""Session fixation, planted cookies, reuse of earlier sessions, and cookie attributes."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest

from fhir_server.settings import Settings
from fhir_server.smart import demo
from fhir_server.smart.core.context import SECOND, SESSION_IDLE, SESSION_LIFE
from tests.attacks.environment import House
from tests.federation.environment import Worlds
from tests.portal.environment import code_in
from tests.smart.environment import Browser, Page, World


def _asks_for_a_password(world: World, cookie: str) -> bool:
    """Whether a browser with this session cookie must sign in."""
    world.http = world.browser()
    world.http.cookies.set("session", cookie)
    return 'name="password"' in world.follow(world.authorize()).text


def test_session_fixation_sign_in_replaces_the_session_id(world: World) -> None:
    page = world.follow(world.authorize())
    before = world.http.cookies["session"]
    world.sign_in(page, "adult")
    after = world.http.cookies["session"]
    assert after != before
    assert not _asks_for_a_password(world, after)  # the control
    assert _asks_for_a_password(world, before)


_AS_OURS = "kCpSP-3nA3giM4EGdnwJQeVq7X3Rjio49_96wEwKTvo"  # has the form of a session id


@pytest.mark.parametrize("planted", ["planted-by-somebody-else", _AS_OURS, "", "x" * 4000], ids=["words", "as ours", "empty", "long"])
def test_session_fixation_planted_cookie_is_never_signed_in(world: World, planted: str) -> None:
    world.http.cookies.set("session", planted, domain="127.0.0.1")
    world.sign_in(world.follow(world.authorize()), "adult")
    after = world.http.cookies["session"]
    assert after not in ("", planted)
    assert not _asks_for_a_password(world, after)  # the control
    assert _asks_for_a_password(world, planted)


def test_session_fixation_federated_sign_in_replaces_session_id(worlds: Worlds) -> None:
    left = worlds.left()
    before = worlds.ours.http.cookies["session"]
    assert worlds.back(worlds.agreed(left)).status_code == 303
    assert worlds.ours.http.cookies["session"] != before
    assert worlds.who() == "Pat Parent"  # the control
    worlds.ours.http = Browser(worlds.ours.app)
    worlds.ours.http.cookies.set("session", before)
    assert worlds.who() == ""


def test_session_fixation_activation_code_use_starts_no_session(house: House) -> None:
    code = code_in(house.signed_in("adult").share())
    visitor = house.signed_in("proxy-standard")
    before = visitor.browser.cookies["session"]
    for _ in range(2):
        assert visitor.send("/accept", "/accept", code=code).status_code == 200
        assert visitor.browser.cookies["session"] == before
        house.clock.forward(SESSION_IDLE - 1)
    for _ in range(SESSION_LIFE // SESSION_IDLE - 2):
        assert visitor.send("/accept", "/accept", code=code).status_code == 200
        house.clock.forward(SESSION_IDLE - 1)
    house.clock.forward(SECOND)
    assert visitor.get("/apps").status_code == 303  # a code sent again does not prolong the session


def test_session_fixation_new_sign_in_ends_the_previous_session(world: World) -> None:
    world.consent_page()
    before = world.http.cookies["session"]
    fields = dict(Page(world.http.get("/sign-in").text).sent) | {"username": "parent-a", "password": demo.PASSWORD}
    assert world.http.post("/sign-in", data=fields).status_code == 303
    assert _asks_for_a_password(world, before)


@pytest.mark.parametrize("path", ["/sign-in", "/oauth/record", "/oauth/consent", "/sign-out"])
@pytest.mark.parametrize("token", [None, "", "wrong", "é"])
def test_csrf_authorization_form_without_token_consumes_nothing(world: World, path: str, token: str | None) -> None:
    page = world.consent_page()
    fields = {name: value for name, value in Page(page.text).sent if name != "token"}
    fields |= {"decision": "allow", "patient": "adult", "username": "adult", "password": demo.PASSWORD}
    fields |= {} if token is None else {"token": token}
    assert world.http.post(path, data=fields).status_code == 403
    assert world.submit(page, decision="allow").status_code == 303  # the control


def test_csrf_a_form_token_of_another_browser_is_refused(world: World) -> None:
    page = world.consent_page()
    other = world.browser()
    other.cookies.set("session", "something-else")
    assert other.post("/oauth/consent", data=dict(Page(page.text).sent) | {"decision": "allow"}).status_code == 403


# cookie attributes


def _cookies(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in answer.headers.get_list("set-cookie"):
        found |= SimpleCookie(line)
    return found


def _given(world: World) -> dict[str, Any]:
    """Every cookie set by a sign-in and a sign-out, by name."""
    fields = dict(Page(world.http.get("/sign-in").text).sent) | {"username": "adult", "password": demo.PASSWORD}
    first = _cookies(world.browser().get("/sign-in"))
    return first | _cookies(world.http.post("/sign-in", data=fields))


def test_cookie_flags_on_loopback_are_httponly_and_samesite_lax(world: World) -> None:
    given = _given(world)
    assert given.keys() == {"session", "device"}
    for cookie in given.values():
        assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"]) == (True, "lax", "/", "")


def test_cookie_flags_on_https_are_secure_and_bound_to_the_host(world: World) -> None:
    object.__setattr__(world.smart, "origin", "https://demo.example")
    found = _cookies(world.http.get("/sign-in"))
    visible = found["__Host-session"]
    world.http.cookies.set("__Host-session", visible.value)
    fields = dict(Page(world.http.get("/sign-in").text).sent) | {"username": "adult", "password": demo.PASSWORD}
    found |= _cookies(world.http.post("/sign-in", data=fields, headers={"Cookie": f"__Host-session={visible.value}"}))
    assert found.keys() == {"__Host-session", "__Host-device"}
    for cookie in found.values():
        assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "lax")
        assert (cookie["path"], cookie["domain"]) == ("/", "")


def test_cookie_flags_production_requires_https_except_on_loopback() -> None:
    key = {"FHIR_SERVER_SECRET_KEY": "k" * 32}
    clear = ("http://hospital.example", "http://10.0.0.5:8000", "http://127.0.0.1.evil.example", "http://localhost.evil.example")
    for origin in clear:
        with pytest.raises(ValueError, match="https"):
            Settings.from_environment(key | {"FHIR_SERVER_ORIGIN": origin})
        assert Settings.from_environment({"FHIR_SERVER_ORIGIN": origin, "FHIR_SERVER_MODE": "demo"}).origin == origin
    for origin in ("https://hospital.example", "http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"):
        assert Settings.from_environment(key | {"FHIR_SERVER_ORIGIN": origin}).origin == origin
