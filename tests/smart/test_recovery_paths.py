"""Every page of an authorization recovers from expiry, resubmitted forms and actions in another tab."""

from __future__ import annotations

import re
from html import unescape

import pytest

from fhir_server.smart.core.context import REQUEST_LIFE, SESSION_IDLE
from tests.smart.environment import Page, World, query

LAPSED = "You were signed out after"
SIGN_IN = 'name="password"'


@pytest.mark.parametrize("step", ["record", "consent"])
def test_consent_resumes_after_session_expiry(world: World, step: str) -> None:
    picker = world.sign_in(world.follow(world.authorize()), "adult")
    page, fields = (picker, {"patient": "adult"}) if step == "record" else (world.submit(picker, patient="adult"), {"decision": "allow"})
    world.clock.forward(SESSION_IDLE)
    asked = world.submit(page, **fields)
    assert SIGN_IN in asked.text and "requests access" in asked.text
    assert LAPSED in asked.text
    on = world.sign_in(asked, "adult")
    on = world.submit(on, patient="adult") if step == "record" else on
    assert query(world.submit(on, decision="allow").headers["location"])["code"]


def test_first_sign_in_shows_no_session_expiry_notice(world: World) -> None:
    assert LAPSED not in world.follow(world.authorize()).text


def test_sign_in_for_an_expired_request_returns_400_page(world: World) -> None:
    page = world.follow(world.authorize())
    address = "/sign-in?request=" + dict(Page(page.text).sent)["request"]
    assert SIGN_IN in world.http.get(address).text
    world.clock.forward(REQUEST_LIFE)
    late = world.http.get(address)
    assert (late.status_code, SIGN_IN in late.text) == (400, False)
    assert "has expired" in late.text and 'href="/"' in late.text


def test_resent_sign_in_form_links_to_the_pending_request(world: World) -> None:
    page = world.follow(world.authorize())
    assert Page(world.sign_in(page, "adult").text).radios
    twice = world.sign_in(page, "adult")
    handle = dict(Page(page.text).sent)["request"]
    assert (twice.status_code, "You are signed in" in twice.text) == (403, True)
    assert f'href="/oauth/continue?request={handle}"' in twice.text
    assert Page(world.follow(world.http.get(f"/oauth/continue?request={handle}")).text).radios


def test_stale_sign_in_form_links_to_a_new_one_for_the_same_app(world: World) -> None:
    page = world.follow(world.authorize())
    world.http.cookies.clear()
    again = world.sign_in(page, "adult")
    found = re.search(r'<a href="(/sign-in[^"]+)">Sign in</a>', again.text)
    assert again.status_code == 403 and found
    assert Page(world.sign_in(world.http.get(unescape(found[1])), "adult").text).radios


def test_repeated_sign_out_leads_to_the_signed_out_page(world: World) -> None:
    page = world.consent_page()
    fields = {"token": dict(Page(page.text).sent)["token"]}
    for _ in range(2):
        assert world.http.post("/sign-out", data=fields).headers["location"] == "/signed-out"


def test_stale_sign_out_form_keeps_current_session(world: World) -> None:
    fields = {"token": dict(Page(world.consent_page().text).sent)["token"]}
    world.sign_in(world.http.get("/sign-in"), "parent-a")
    assert world.http.post("/sign-out", data=fields).status_code == 403
    assert Page(world.follow(world.authorize()).text).radios == ["child", "teen"]


def test_resent_consent_form_links_to_connected_apps(world: World) -> None:
    page = world.consent_page()
    assert query(world.submit(page, decision="allow").headers["location"])["code"]
    twice = world.submit(page, decision="allow")
    assert (twice.status_code, "already" in twice.text, 'href="/apps"' in twice.text) == (400, True, True)


def test_refused_form_links_to_the_start_page(world: World) -> None:
    world.consent_page()
    refused = world.http.post("/oauth/consent", data={"token": "wrong", "decision": "allow"})
    assert (refused.status_code, 'href="/"' in refused.text) == (403, True)
