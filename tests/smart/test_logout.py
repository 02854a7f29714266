"""RP-Initiated Logout 1.0."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.context import DAY, MINUTE, SECOND
from tests.smart.back_channel_helpers import BACK, CHANNEL
from tests.smart.environment import Page, World, claims_of
from tests.smart.openid_helpers import change_client, set_options, silent


@pytest.fixture
def signed_in(world: World) -> str:
    """The id_token of an app that has registered for logout, in a browser with that session."""
    set_options(world, post_logout_redirect_uris=(BACK,), backchannel_logout_uri=CHANNEL)
    return str(world.tokens()["id_token"])


def logout(world: World, **parameters: str) -> httpx.Response:
    return world.follow(world.http.get("/oauth/logout", params=parameters))


def is_signed_in(world: World) -> bool:
    return silent(world).get("error") != "login_required"


def test_rp_logout_3_matching_id_token_signs_out_and_returns(world: World, signed_in: str) -> None:
    answer = logout(world, id_token_hint=signed_in, post_logout_redirect_uri=BACK, state="s t&")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{BACK}&state=s+t%26")
    assert not is_signed_in(world)


def test_rp_logout_2_request_by_post_is_taken(world: World, signed_in: str) -> None:
    answer = world.follow(world.http.post("/oauth/logout", data={"id_token_hint": signed_in, "post_logout_redirect_uri": BACK}))
    assert answer.headers["location"] == BACK
    assert not is_signed_in(world)


def test_rp_logout_2_expired_id_token_is_a_hint(world: World, signed_in: str) -> None:
    for _ in range(9):
        world.clock.forward(8 * MINUTE)
        world.http.get("/oauth/continue?request=x")
        world.follow(world.authorize())
    assert claims_of(signed_in)[1]["exp"] < world.clock() // SECOND
    assert logout(world, id_token_hint=signed_in, post_logout_redirect_uri=BACK).headers["location"] == BACK


@pytest.mark.parametrize("kind", ["none", "client", "forged", "another session", "another person"])
def test_rp_logout_6_without_a_matching_id_token_the_person_is_asked(world: World, signed_in: str, kind: str) -> None:
    hint = signed_in
    if kind == "another session":
        world.http.cookies.clear()
        world.sign_in(world.http.get("/sign-in"), "adult")
    elif kind == "another person":
        world.http.cookies.clear()
        world.sign_in(world.http.get("/sign-in"), "parent-a")
    given = {"none": {}, "client": {"client_id": "demo-public"}, "forged": {"id_token_hint": hint[:-8] + "AAAAAAAA"}}
    page = logout(world, post_logout_redirect_uri=BACK, **given.get(kind, {"id_token_hint": hint}))
    assert (page.status_code, Page(page.text).action) == (200, "/oauth/logout/confirm")
    assert is_signed_in(world)
    assert world.submit(page, decision="stay").status_code in (303, 404)
    assert is_signed_in(world)
    done = world.submit(page, decision="sign-out")
    assert "You are signed out" in done.text
    assert (BACK in done.text) is (kind not in ("none", "forged"))
    assert not is_signed_in(world)


@pytest.mark.parametrize("uri", ["https://evil.example/", BACK + "&b=2", BACK.replace("https", "http"), "javascript:alert(1)"])
def test_rp_logout_3_unregistered_redirect_is_not_followed(world: World, signed_in: str, uri: str) -> None:
    answer = logout(world, id_token_hint=signed_in, post_logout_redirect_uri=uri)
    assert (answer.status_code, "location" in answer.headers) == (200, False)
    assert "You are signed out" in answer.text
    assert "evil" not in answer.text


def test_rp_logout_2_client_id_must_be_that_of_the_id_token(world: World, signed_in: str) -> None:
    answer = logout(world, id_token_hint=signed_in, client_id="demo-confidential", post_logout_redirect_uri=BACK)
    assert answer.status_code == 400
    assert is_signed_in(world)


def test_logout_after_the_session_ended_returns_to_a_known_app(world: World, signed_in: str) -> None:
    world.http.cookies.clear()
    assert logout(world, id_token_hint=signed_in, post_logout_redirect_uri=BACK).headers["location"] == BACK


def test_page_after_a_logout_names_the_apps_that_still_have_access(world: World, signed_in: str) -> None:
    page = logout(world, id_token_hint=signed_in)
    assert "Apps that still have access" in page.text and Page(page.text).action == "/signed-out/apps"


def test_logout_request_expires(world: World, signed_in: str) -> None:
    location = world.http.get("/oauth/logout", params={"id_token_hint": signed_in}).headers["location"]
    world.clock.forward(DAY)
    assert world.http.get(location).status_code == 400


def test_backend_named_in_a_logout_request_is_nobody(world: World) -> None:
    assert logout(world, client_id="demo-backend").status_code == 200


def test_id_token_of_a_retired_key_asks_the_person(world: World, signed_in: str) -> None:
    asyncio.run(signing_keys.rotate(world.smart, "RS256"))
    assert Page(logout(world, id_token_hint="x.y.z").text).action == "/oauth/logout/confirm"
    logout(world, id_token_hint=signed_in)
    assert not is_signed_in(world)


def test_app_names_on_the_confirmation_page_are_escaped(world: World, signed_in: str) -> None:
    change_client(world, name="<b>App</b>")
    assert "<b>App" not in logout(world, client_id="demo-public").text
