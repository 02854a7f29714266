"""The account page: password, second factor and sessions. Each change requires the current password."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from fhir_server import portal
from fhir_server.smart import demo, routes
from fhir_server.smart.accounts import account_events, second_factor, sessions, users
from fhir_server.smart.accounts.password_sign_in import PER_NAME_AND_ADDRESS
from fhir_server.smart.core.context import DAY, MINUTE, SECOND
from tests.portal.environment import Form, Visitor, World
from tests.smart.test_second_factor import one_time, recovery_codes, seed_on

NEW = "blue kettle four spoons"


def sign_in(world: World, username: str, password: str, **fields: str) -> tuple[Visitor, httpx.Response]:
    visitor = world.visitor()
    return visitor, visitor.send("/sign-in", "/sign-in", username=username, password=password, **fields)


def enters(world: World, username: str, password: str) -> bool:
    return sign_in(world, username, password)[1].status_code == 303


def stands(visitor: Visitor) -> bool:
    return visitor.get("/account").status_code == 200


def change(visitor: Visitor, **fields: str) -> httpx.Response:
    given = {"password": demo.PASSWORD, "new": NEW, "again": NEW} | fields
    return visitor.send("/account", "/account/password", **given)


def set_up(world: World, visitor: Visitor) -> tuple[bytes, httpx.Response]:
    page = visitor.send("/account", "/account/second", password=demo.PASSWORD)
    seed = seed_on(page)
    token = Form(page.text, "/account/second/confirm").forms[0]
    return seed, visitor.post("/account/second/confirm", **token, code=one_time(seed, world.clock()))


def test_password_change_replaces_password_and_ends_other_sessions(world: World) -> None:
    here, there, other = world.signed_in("adult"), world.signed_in("adult"), world.signed_in("parent-a")
    assert change(here).headers["location"] == "/account?done=password"
    assert stands(here) and not stands(there) and stands(other)
    assert not enters(world, "adult", demo.PASSWORD)
    assert enters(world, "adult", NEW)
    assert "was changed" in here.get("/account?done=password").text


def test_password_change_replaces_the_current_session(world: World) -> None:
    here = world.signed_in("adult")
    before = here.browser.cookies["session"]
    change(here)
    assert here.browser.cookies["session"] != before
    assert asyncio.run(sessions.current(world.made.smart, before)) is None


@pytest.mark.parametrize("password", ["", "wrong-password", demo.PASSWORD.lower(), demo.PASSWORD + " "])
def test_account_changes_require_the_current_password(world: World, password: str) -> None:
    here = world.signed_in("adult")
    world.signed_in("adult")
    assert change(here, password=password).status_code == 400
    assert here.send("/account", "/account/second", password=password).status_code == 400
    handle = re.search(r'name="(end-\w+)"', here.get("/account").text)
    assert handle
    assert here.send("/account", "/account/sessions", password=password, **{handle[1]: "yes"}).status_code == 400
    assert len(asyncio.run(sessions.list_all(world.made.smart, world.account("adult")))) == 2
    assert asyncio.run(second_factor.find_factor(world.made.smart, world.account("adult"))) is None
    assert enters(world, "adult", demo.PASSWORD)


@pytest.mark.parametrize(
    ("new", "again"), [("short", "short"), ("password1234", "password1234"), (NEW, NEW + "!"), ("alexadult1", "alexadult1")]
)
def test_rejected_new_password_changes_nothing(world: World, new: str, again: str) -> None:
    here = world.signed_in("adult")
    answer = change(here, new=new, again=again)
    assert (answer.status_code, 'role="alert"' in answer.text) == (400, True)
    assert stands(here)
    assert enters(world, "adult", demo.PASSWORD)


def test_password_fields_are_masked_and_allow_pasting(world: World) -> None:
    text = world.signed_in("adult").get("/account").text
    fields = re.findall(r"<input[^>]*name=\"(?:password|new|again)\"[^>]*>", text)
    assert len(fields) == 4
    assert all('type="password"' in one and 'autocomplete="' in one and "off" not in one for one in fields)
    assert "<script" not in text and "onpaste" not in text


def test_account_page_limits_password_attempts(world: World) -> None:
    here = world.signed_in("adult")
    here.browser.cookies.delete("device")
    for _ in range(PER_NAME_AND_ADDRESS + 1):  # those that are free, and the turn of this moment
        assert change(here, password="wrong-password").status_code == 400
    assert change(here).status_code == 400
    world.clock.forward(9 * MINUTE)
    assert stands(here)
    world.clock.forward(7 * MINUTE)
    assert change(here).status_code == 303


def test_passwords_do_not_expire(world: World) -> None:
    world.clock.forward(4000 * DAY)
    assert enters(world, "adult", demo.PASSWORD)


def test_account_page_lists_and_ends_only_own_sessions(world: World) -> None:
    here, there, third, other = (world.signed_in(name) for name in ("adult", "adult", "adult", "parent-a"))
    handles = re.findall(r'name="(end-\w+)"', here.get("/account").text)
    assert len(handles) == 2
    assert here.send("/account", "/account/sessions", password=demo.PASSWORD, **{handles[0]: "yes"}).status_code == 303
    assert [stands(one) for one in (here, there, third, other)].count(True) == 3
    assert here.send("/account", "/account/sessions", password=demo.PASSWORD).status_code == 400
    foreign = re.search(r'name="(end-\w+)"', world.signed_in("parent-a").get("/account").text)
    assert foreign
    assert here.send("/account", "/account/sessions", password=demo.PASSWORD, **{foreign[1]: "yes"}).status_code == 400
    assert stands(other) and stands(here)


def test_all_other_sessions_can_be_ended_at_once(world: World) -> None:
    here, there, third = (world.signed_in("adult") for _ in range(3))
    handles = dict.fromkeys(re.findall(r'name="(end-\w+)"', here.get("/account").text), "yes")
    assert here.send("/account", "/account/sessions", password=demo.PASSWORD, **handles).status_code == 303
    assert [stands(one) for one in (here, there, third)] == [True, False, False]


def test_second_factor_setup_requires_codes_and_ends_other_sessions(world: World) -> None:
    here, there = world.signed_in("adult"), world.signed_in("adult")
    seed, done = set_up(world, here)
    assert len(recovery_codes(done)) == second_factor.RECOVERY_CODES
    assert stands(here) and not stands(there)
    world.clock.forward(MINUTE)
    visitor, answer = sign_in(world, "adult", demo.PASSWORD)
    assert answer.headers["location"] == "/sign-in/second"
    assert not stands(visitor)
    assert visitor.send("/sign-in/second", "/sign-in/second", code=one_time(seed, world.clock())).status_code == 303
    assert stands(visitor)


def test_wrong_first_code_does_not_enroll_a_second_factor(world: World) -> None:
    here = world.signed_in("adult")
    page = here.send("/account", "/account/second", password=demo.PASSWORD)
    token = Form(page.text, "/account/second/confirm").forms[0]
    assert here.post("/account/second/confirm", **token, code="000000").status_code == 400
    assert asyncio.run(second_factor.find_factor(world.made.smart, world.account("adult"))) is None


def test_second_factor_setup_is_bound_to_its_session_and_expires(world: World) -> None:
    here, there = world.signed_in("adult"), world.signed_in("adult")
    seed = seed_on(here.send("/account", "/account/second", password=demo.PASSWORD))
    token = Form(there.get("/account").text, "/account/second").forms[0]
    assert there.post("/account/second/confirm", **token, code=one_time(seed, world.clock())).status_code == 400
    world.clock.forward(9 * MINUTE)
    assert stands(here)
    world.clock.forward(2 * MINUTE)
    token = Form(here.get("/account").text, "/account/second").forms[0]
    assert here.post("/account/second/confirm", **token, code=one_time(seed, world.clock())).status_code == 400
    assert asyncio.run(second_factor.find_factor(world.made.smart, world.account("adult"))) is None


def test_account_changes_require_the_second_factor_code(world: World) -> None:
    here = world.signed_in("adult")
    seed, _ = set_up(world, here)
    world.clock.forward(MINUTE)
    assert change(here).status_code == 400
    assert change(here, code="000000").status_code == 400
    assert here.send("/account", "/account/second/end", password=demo.PASSWORD).status_code == 400
    assert asyncio.run(second_factor.find_factor(world.made.smart, world.account("adult"))) is not None
    assert change(here, code=one_time(seed, world.clock())).status_code == 303
    world.clock.forward(30 * SECOND)
    code = one_time(seed, world.clock())
    assert here.send("/account", "/account/second/end", password=NEW, code=code).status_code == 303
    assert asyncio.run(second_factor.find_factor(world.made.smart, world.account("adult"))) is None


def test_required_second_factor_can_be_replaced_but_not_removed(world: World) -> None:
    smart = replace(world.made.smart, second_factor=frozenset({"clinician"}))
    world.app = FastAPI()
    world.app.include_router(routes.router(smart))
    world.app.include_router(portal.router(smart, world.made.service, world.api.ask))
    here, _ = sign_in(world, "clinician", demo.PASSWORD)
    seed = seed_on(here.get("/sign-in/second"))
    here.send("/sign-in/second", "/sign-in/second", code=one_time(seed, world.clock()))
    page = here.get("/account").text
    assert "/account/second/end" not in page
    world.clock.forward(MINUTE)
    token = Form(page, "/account/second").forms[0]
    fields = {"password": demo.PASSWORD, "code": one_time(seed, world.clock())}
    assert here.post("/account/second/end", **token, **fields).status_code == 400
    assert asyncio.run(second_factor.find_factor(smart, world.account("clinician"))) is not None
    assert seed_on(here.post("/account/second", **token, **fields)) != seed


def test_csrf_account_form_of_another_browser_returns_403(world: World) -> None:
    here, there = world.signed_in("adult"), world.signed_in("adult")
    fields = Form(there.get("/account").text, "/account/password").forms[0] | {"password": demo.PASSWORD, "new": NEW, "again": NEW}
    assert here.post("/account/password", **fields).status_code == 403
    assert there.post("/account/password", **fields).status_code == 303  # the control


@pytest.mark.parametrize("username", ["adult", "parent-a", "clinician"])
def test_account_page_offers_sign_out_to_every_account(world: World, username: str) -> None:
    text = world.signed_in(username).get("/account").text
    assert 'action="/sign-out"' in text
    assert 'href="/account"' in text
    assert world.visitor().get("/account").headers["location"] == "/sign-in?next=%2Faccount"


def test_account_changes_are_announced_once_at_the_next_sign_in(world: World) -> None:
    assert "Since you last signed in" not in world.signed_in("adult").get("/").text
    somebody = world.signed_in("adult")
    change(somebody)
    first, _ = sign_in(world, "adult", NEW)
    assert "Password changed" in first.get("/").text
    again, _ = sign_in(world, "adult", NEW)
    assert "Since you last signed in" not in again.get("/").text
    assert "Password changed" in again.get("/account").text
    assert "Password changed" not in world.signed_in("parent-a").get("/account").text


def test_account_page_lists_a_limited_number_of_recent_events(world: World) -> None:
    for _ in range(account_events.MAX_EVENTS + 3):
        here = world.signed_in("adult")
    set_up(world, here)
    told = here.get("/account").text.partition("Recent activity")[2]
    assert told.count("<li>") - told.count("<li><a") == account_events.MAX_EVENTS
    assert "Two-step verification turned on" in told


def test_closing_an_account_deletes_its_events(world: World) -> None:
    world.signed_in("adult")
    assert asyncio.run(world.store.key_values.list_all("account-events", world.clock())) != ()
    asyncio.run(users.remove(world.store, "adult", world.clock()))
    assert asyncio.run(world.store.key_values.list_all("account-events", world.clock())) == ()
