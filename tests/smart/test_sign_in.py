from __future__ import annotations

import asyncio

import httpx
import msgspec

from fhir_server.smart import demo
from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.password_sign_in import check_password_sign_in
from fhir_server.smart.core.context import MINUTE, SESSION_IDLE, SESSION_LIFE
from tests.smart.environment import Page, World


def signed(response: httpx.Response) -> bool:
    return bool(Page(response.text).radios)


def guess(world: World, username: str, password: str, address: str = "10.0.0.1") -> bool:
    return asyncio.run(check_password_sign_in(world.store, username, password, address, world.clock())) is not None


def test_correct_password_signs_in_and_wrong_one_returns_400(world: World) -> None:
    page = world.follow(world.authorize())
    refused = world.sign_in(page, "adult", "wrong-password")
    assert refused.status_code == 400
    assert 'role="alert"' in refused.text
    assert signed(world.sign_in(refused, "Adult "))  # the spelling of the name is forgiven


def test_a_disabled_account_cannot_sign_in(world: World) -> None:
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    assert guess(world, "adult", demo.PASSWORD)
    asyncio.run(users.save(world.store, msgspec.structs.replace(user, disabled=True)))
    assert not guess(world, "adult", demo.PASSWORD)


def test_session_expires_after_ten_idle_minutes(world: World) -> None:
    world.consent_page()
    for _ in range(3):
        world.clock.forward(SESSION_IDLE - MINUTE)
        assert signed(world.follow(world.authorize()))
    world.clock.forward(SESSION_IDLE)
    assert 'name="password"' in world.follow(world.authorize()).text


def test_session_expires_after_eight_hours_despite_activity(world: World) -> None:
    world.consent_page()
    for _ in range(SESSION_LIFE // (9 * MINUTE)):
        world.clock.forward(9 * MINUTE)
        assert signed(world.follow(world.authorize()))
    world.clock.forward(9 * MINUTE)
    assert not signed(world.follow(world.authorize()))


def test_sign_out_ends_the_session_on_the_server(world: World) -> None:
    page = world.consent_page()
    cookie = world.http.cookies["session"]
    token = dict(Page(page.text).sent)["token"]
    gone = world.follow(world.http.post("/sign-out", data={"token": token}))
    assert "signed out" in gone.text
    world.http.cookies.set("session", cookie)
    assert 'name="password"' in world.follow(world.authorize()).text


def test_account_change_ends_its_sessions(world: World) -> None:
    world.consent_page()
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    asyncio.run(users.save(world.store, user))
    assert 'name="password"' in world.follow(world.authorize()).text


def test_sign_in_page_names_the_app_and_its_redirect_host(world: World) -> None:
    page = world.follow(world.authorize())
    assert "<strong>Demo phone app</strong>, on this device (127.0.0.1), requests access" in page.text
    again = world.sign_in(page, "adult", "wrong-password")
    assert "Demo phone app" in again.text
    assert "requests access" not in world.http.get("/sign-in").text
