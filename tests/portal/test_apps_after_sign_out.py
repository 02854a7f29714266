"""What is said of apps that still have access, and the offer to end it: at sign-out and after a change of the password."""

from __future__ import annotations

import re

import pytest

from fhir_server.smart import demo
from fhir_server.smart.core.context import MINUTE
from tests.portal.environment import Form, Visitor, World
from tests.smart.environment import CHALLENGE, VERIFIER, Page, _grouped, query

HOUR_LONG = "launch/patient patient/*.rs"
NEW = "a longer password of ours 7"


def allowed(world: World, adult: Visitor, scope: str) -> str:
    """Let the demo app have access in this browser, and return its access token."""
    asked = {
        **{"response_type": "code", "client_id": "demo-public", "redirect_uri": demo.REDIRECT, "scope": scope, "state": "s"},
        **{"aud": world.made.smart.fhir_base, "code_challenge": CHALLENGE, "code_challenge_method": "S256"},
    }
    page = adult.browser.get("/oauth/authorize", params=asked)
    while page.is_redirect:
        page = adult.get(page.headers["location"])
        if Page(page.text).radios:
            page = adult.post("/oauth/record", **dict(Page(page.text).sent) | {"patient": "adult"})
    sent = _grouped([*Page(page.text).sent, ("decision", "allow")])
    code = query(adult.browser.post("/oauth/consent", data=sent).headers["location"])["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": demo.REDIRECT, "code_verifier": VERIFIER}
    return str(adult.browser.post("/oauth/token", data=form | {"client_id": "demo-public"}).json()["access_token"])


def signed_out(adult: Visitor) -> str:
    answer = adult.send("/apps", "/sign-out")
    assert answer.headers["location"] == "/signed-out"
    return adult.get("/signed-out").text


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", Page(page).text)


def test_sign_out_page_names_open_apps_and_ends_them(world: World) -> None:
    adult = world.signed_in("adult")
    token = allowed(world, adult, HOUR_LONG)
    page = signed_out(adult)
    assert "Apps that still have access" in page and "Demo phone app" in page and "one hour after you allowed it" in text_of(page)
    assert world.status(token) == 200
    (form,) = Form(page, "/signed-out/apps").forms
    assert adult.post("/signed-out/apps", **form, app="0").headers["location"] == "/signed-out?ended=yes"
    assert world.status(token) == 401
    assert "has ended" in adult.get("/signed-out?ended=yes").text
    assert "Apps that still have access" not in adult.get("/signed-out").text


def test_lasting_access_is_named_and_kept_unless_it_is_chosen(world: World) -> None:
    adult = world.signed_in("adult")
    token = allowed(world, adult, f"{HOUR_LONG} offline_access")
    page = signed_out(adult)
    assert "keep access when you are not using it" in text_of(page) and "checked" not in page
    (form,) = Form(page, "/signed-out/apps").forms
    adult.post("/signed-out/apps", **form)
    assert world.status(token) == 200


def test_online_access_ends_at_sign_out_and_is_not_offered(world: World) -> None:
    adult = world.signed_in("adult")
    token = allowed(world, adult, f"{HOUR_LONG} online_access")
    assert world.status(token) == 200
    assert "Apps that still have access" not in signed_out(adult)
    assert world.status(token) == 401


def test_app_that_was_ended_is_not_offered_at_sign_out(world: World) -> None:
    adult = world.signed_in("adult")
    allowed(world, adult, HOUR_LONG)
    assert adult.send("/apps", "/apps").status_code == 303
    assert "Apps that still have access" not in signed_out(adult)


def test_names_after_sign_out_are_shown_once_in_that_browser(world: World) -> None:
    adult = world.signed_in("adult")
    token = allowed(world, adult, HOUR_LONG)
    form = Form(signed_out(adult), "/signed-out/apps").forms[0]
    again = adult.get("/signed-out").text
    assert "Demo phone app" not in again and "An app" in again
    assert "Apps that still have access" not in world.visitor().get("/signed-out").text
    assert world.visitor().post("/signed-out/apps", **form, app="0").status_code == 403
    world.clock.forward(5 * MINUTE)
    assert "Apps that still have access" not in adult.get("/signed-out").text
    adult.post("/signed-out/apps", **form, app="0")
    assert world.status(token) == 200


@pytest.mark.parametrize("scope", ["online_access", "offline_access"])
def test_password_change_ends_online_access_and_offers_to_end_the_rest(world: World, scope: str) -> None:
    adult = world.signed_in("adult")
    token = allowed(world, adult, f"{HOUR_LONG} {scope}")
    changed = adult.send("/account", "/account/password", password=demo.PASSWORD, new=NEW, again=NEW)
    assert changed.headers["location"] == "/account?done=password"
    page = adult.get("/account?done=password").text
    assert world.status(token) == (401 if scope == "online_access" else 200)
    assert ("Demo phone app" in page) == (scope == "offline_access")
    if scope == "offline_access":
        assert adult.post("/apps/all", **Form(page, "/apps/all").forms[0]).headers["location"] == "/apps?ended=all"
        assert world.status(token) == 401
        assert "access of all apps has ended" in adult.get("/apps?ended=all").text


def test_ending_all_apps_ends_only_ones_own(world: World) -> None:
    own, others = [world.token("adult", "adult", name) for name in ("one", "two")], world.token("proxy-full", "adult", "three")
    assert world.signed_in("adult").send("/apps", "/apps/all").status_code == 303
    assert [world.status(token) for token in (*own, others)] == [401, 401, 200]
