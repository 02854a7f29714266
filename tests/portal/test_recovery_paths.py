"""Forms that are sent too late or twice, or must be filled in again."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urlencode

import pytest

from fhir_server.portal.sharing import ENDED
from fhir_server.smart import demo
from fhir_server.smart.accounts import users
from fhir_server.smart.core.context import SESSION_IDLE
from tests.portal.environment import Form, World
from tests.portal.test_account import change, set_up
from tests.smart.test_second_factor import one_time

LAPSED = "You were signed out after"
TYPED = "abcd efgh 0123 <456"


@pytest.mark.parametrize("page", ["/sharing", "/accept", "/account"])
def test_form_after_session_expiry_shows_notice_and_changes_nothing(world: World, page: str) -> None:
    adult = world.signed_in("adult")
    form = Form(adult.get(page).text, "/account/password" if page == "/account" else page).forms[0]
    before = (len(world.stored("Consent")), world.account("adult"))
    world.clock.forward(SESSION_IDLE)
    answer = adult.post("/account/password" if page == "/account" else page, **form, name="Late", level="full", code="late")
    assert answer.status_code == 303
    text = adult.get(answer.headers["location"]).text
    assert LAPSED in text and "check whether" in text and f'name="next" value="{page}"' in text
    assert (len(world.stored("Consent")), world.account("adult")) == before


def test_page_after_session_expiry_asks_to_sign_in_without_notice(world: World) -> None:
    adult = world.signed_in("adult")
    world.clock.forward(SESSION_IDLE)
    text = adult.get(adult.get("/sharing").headers["location"]).text
    assert 'name="password"' in text and LAPSED not in text


def test_refused_activation_code_stays_in_the_form(world: World) -> None:
    answer = world.signed_in("proxy-standard").send("/accept", "/accept", code=TYPED)
    assert answer.status_code == 400
    assert 'value="abcd efgh 0123 &lt;456"' in answer.text


def test_ending_proxy_access_shows_a_confirmation_once(world: World) -> None:
    adult = world.signed_in("adult")
    adult.share()
    answer = adult.send("/sharing", "/sharing/end", which=-1)
    assert answer.status_code == 303
    told = re.search(r'role="status">([^<]*)<', adult.get(answer.headers["location"]).text)
    assert told and "ended" in told[1] and "once more" in told[1]
    assert 'role="status"' not in adult.get("/sharing").text


@pytest.mark.parametrize(("patient", "told"), [("teen", True), (None, False)])
def test_account_without_records_sees_age_reason_if_it_applies(world: World, patient: str | None, told: bool) -> None:
    asyncio.run(users.create(world.store, "someone", demo.PASSWORD, "patient", patient=patient))
    visitor = world.signed_in("someone")
    asked = {"response_type": "code", "client_id": "demo-public", "redirect_uri": demo.REDIRECT, "scope": "patient/*.rs", "state": "s" * 32}
    asked |= {"aud": world.made.smart.fhir_base, "code_challenge": "c" * 43, "code_challenge_method": "S256"}
    answer = visitor.browser.get("/oauth/authorize", params=asked)
    while answer.is_redirect:
        answer = visitor.get(answer.headers["location"])
    for page in (visitor.get("/"), answer):
        text = " ".join(page.text.split())
        assert "not have access to any health record" in text
        assert ("not reached the age at which" in text) == told


@pytest.mark.parametrize(
    ("address", "page"),
    [
        ("/sharing/end", "/sharing"),
        ("/sharing/code", "/sharing"),
        ("/account/password", "/account"),
        ("/account/second", "/account"),
    ],
)
def test_get_of_a_form_url_redirects_to_its_page(world: World, address: str, page: str) -> None:
    adult = world.signed_in("adult")
    before = len(world.stored("Consent"))
    answer = adult.get(address + "?" + urlencode({"token": Form(adult.get("/").text, "/sign-out").forms[0]["token"]}))
    assert (answer.status_code, answer.headers["location"]) == (303, page)
    assert len(world.stored("Consent")) == before


def test_ending_ended_access_shows_notice(world: World) -> None:
    adult = world.signed_in("adult")
    form = Form(adult.get("/sharing").text, "/sharing/end").forms[0]
    assert adult.post("/sharing/end", **form).status_code == 303
    assert ENDED in adult.post("/sharing/end", **form).text


def test_ending_app_access_shows_a_confirmation_once(world: World) -> None:
    world.token("adult", "adult")
    adult = world.signed_in("adult")
    answer = adult.send("/apps", "/apps")
    assert answer.status_code == 303
    told = re.search(r'role="status">([^<]*)<', adult.get(answer.headers["location"]).text)
    assert told and "ended" in told[1] and "app" in told[1]
    assert 'role="status"' not in adult.get("/apps").text


def test_error_mentions_the_code_only_with_a_second_factor(world: World) -> None:
    adult = world.signed_in("adult")
    alone = problem(change(adult, password="wrong-password").text)
    assert "password" in alone and "code" not in alone
    seed, _ = set_up(world, adult)
    used = one_time(seed, world.clock())
    assert "Each code works once" in problem(change(adult, code=used).text)


def test_account_page_explains_second_factor_changes_beforehand(world: World) -> None:
    adult = world.signed_in("adult")
    assert "until you finish setting up" not in adult.get("/account").text
    set_up(world, adult)
    text = " ".join(adult.get("/account").text.split())
    assert "Your current app and recovery codes work until you finish setting up the new app" in text
    assert "You will sign in with only your password" in text


def problem(text: str) -> str:
    return text.partition('role="alert"')[2].partition("</div>")[0]
