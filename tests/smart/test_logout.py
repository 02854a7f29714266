"""RP-Initiated Logout 1.0 and Back-Channel Logout 1.0."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.context import DAY, MINUTE, SECOND
from fhir_server.smart.tokens import back_channel
from fhir_server.web.public_fetch import Network
from tests.smart.environment import ORIGIN, Page, World, claims_of
from tests.smart.openid_helpers import change_client, set_options, silent

BACK = "https://app.example/signed-out?a=1"
CHANNEL = "https://app.example/logout"


class Receiver:
    """An app's server: the logout tokens it received, and the statuses with which it answers."""

    def __init__(self, world: World, *statuses: int) -> None:
        self.statuses, self.requests = list(statuses), []  # type: list[int], list[httpx.Request]
        self.address = "93.184.216.34"
        object.__setattr__(world.smart, "network", Network(self.resolve, httpx.MockTransport(self.answer)))

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        return (self.address,)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status = self.statuses.pop(0) if self.statuses else 200
        if not status:
            raise httpx.ConnectError("down")
        return httpx.Response(status)

    @property
    def tokens(self) -> list[str]:
        return [dict(parse_qsl(request.content.decode()))["logout_token"] for request in self.requests]


@pytest.fixture
def signed_in(world: World) -> str:
    """The id_token of an app that has registered for logout, in a browser with that session."""
    set_options(world, post_logout_redirect_uris=(BACK,), backchannel_logout_uri=CHANNEL)
    return str(world.tokens()["id_token"])


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(back_channel, "PAUSES", (0.0, 0.0, 0.0))


def logout(world: World, **parameters: str) -> httpx.Response:
    return world.follow(world.http.get("/oauth/logout", params=parameters))


def is_signed_in(world: World) -> bool:
    return silent(world).get("error") != "login_required"


def test_rp_logout_3_matching_id_token_signs_out_and_returns(world: World, signed_in: str) -> None:
    Receiver(world)
    answer = logout(world, id_token_hint=signed_in, post_logout_redirect_uri=BACK, state="s t&")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{BACK}&state=s+t%26")
    assert not is_signed_in(world)


def test_rp_logout_2_request_by_post_is_taken(world: World, signed_in: str) -> None:
    Receiver(world)
    answer = world.follow(world.http.post("/oauth/logout", data={"id_token_hint": signed_in, "post_logout_redirect_uri": BACK}))
    assert answer.headers["location"] == BACK
    assert not is_signed_in(world)


def test_rp_logout_2_expired_id_token_is_a_hint(world: World, signed_in: str) -> None:
    Receiver(world)
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
    Receiver(world)
    done = world.submit(page, decision="sign-out")
    assert "You are signed out" in done.text
    assert (BACK in done.text) is (kind not in ("none", "forged"))
    assert not is_signed_in(world)


@pytest.mark.parametrize("uri", ["https://evil.example/", BACK + "&b=2", BACK.replace("https", "http"), "javascript:alert(1)"])
def test_rp_logout_3_unregistered_redirect_is_not_followed(world: World, signed_in: str, uri: str) -> None:
    Receiver(world)
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
    Receiver(world)
    page = logout(world, id_token_hint=signed_in)
    assert "Apps that still have access" in page.text and Page(page.text).action == "/signed-out/apps"


def test_logout_request_expires(world: World, signed_in: str) -> None:
    location = world.http.get("/oauth/logout", params={"id_token_hint": signed_in}).headers["location"]
    world.clock.forward(DAY)
    assert world.http.get(location).status_code == 400


def test_backend_named_in_a_logout_request_is_nobody(world: World) -> None:
    assert logout(world, client_id="demo-backend").status_code == 200


@pytest.mark.parametrize("how", ["sign-out", "app", "sign-in"])
def test_back_channel_2_4_every_sign_out_sends_a_logout_token(world: World, signed_in: str, how: str) -> None:
    receiver = Receiver(world)
    if how == "app":
        logout(world, id_token_hint=signed_in)
    elif how == "sign-in":  # it ends the browser's earlier session
        assert world.sign_in(world.http.get("/sign-in"), "adult").status_code != 400
    else:
        page = world.follow(world.authorize())
        token = page.text.partition('action="/sign-out"')[2].partition('name="token" value="')[2].partition('"')[0]
        assert world.http.post("/sign-out", data={"token": token}).status_code == 303
    (request,), (token,) = receiver.requests, receiver.tokens
    assert (request.method, request.headers["host"], request.url.path) == ("POST", "app.example", "/logout")
    keys = KeySet.import_key_set(world.http.get("/oauth/jwks").json())
    decoded = jwt.decode(token, keys, algorithms=["RS256"])
    claims, signed = decoded.claims, claims_of(signed_in)[1]
    assert decoded.header["typ"] == "logout+jwt"
    assert (claims["iss"], claims["aud"]) == (ORIGIN, "demo-public")
    assert (claims["sub"], claims["sid"]) == (signed["sub"], signed["sid"])
    assert claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
    assert "nonce" not in claims
    assert claims["iat"] == world.clock() // SECOND
    assert claims["exp"] - claims["iat"] == 120
    assert claims["jti"]


def test_logout_token_is_no_id_token_hint(world: World, signed_in: str) -> None:
    receiver = Receiver(world)
    logout(world, id_token_hint=signed_in)
    world.tokens()
    page = logout(world, id_token_hint=receiver.tokens[0], post_logout_redirect_uri=BACK)
    assert Page(page.text).action == "/oauth/logout/confirm"
    assert BACK not in page.text


@pytest.mark.parametrize(("statuses", "calls"), [((200,), 1), ((204,), 1), ((400,), 1), ((0, 503, 200), 3), ((0,) * 9, 3)])
def test_back_channel_2_7_calls_are_repeated_and_then_given_up(world: World, signed_in: str, statuses: tuple[int, ...], calls: int) -> None:
    receiver, recorded = Receiver(world, *statuses), []

    async def record(event: Any, at: int) -> None:
        recorded.append(event)

    object.__setattr__(world.smart, "record_security_event", record)
    logout(world, id_token_hint=signed_in)
    assert len(receiver.requests) == calls
    assert len({claims_of(token)[1]["jti"] for token in receiver.tokens}) == calls
    assert [event.done for event in recorded if event.detail.get("told")] == [statuses[-1] in (200, 204)]


def test_only_clients_of_the_session_are_told(world: World, signed_in: str) -> None:
    set_options(world, "demo-confidential", backchannel_logout_uri="https://other.example/logout")
    receiver = Receiver(world)
    logout(world, id_token_hint=signed_in)
    assert {request.headers["host"] for request in receiver.requests} == {"app.example"}


def test_two_clients_of_a_session_are_told_with_their_own_sid(world: World, signed_in: str) -> None:
    set_options(world, "demo-confidential", backchannel_logout_uri="https://other.example/logout")
    page = world.submit(world.follow(world.authorize(client_id="demo-confidential")), patient="adult")
    world.submit(page, decision="allow")
    receiver = Receiver(world)
    logout(world, id_token_hint=signed_in)
    assert {claims_of(token)[1]["aud"] for token in receiver.tokens} == {"demo-public", "demo-confidential"}
    assert len({claims_of(token)[1]["sid"] for token in receiver.tokens}) == 2


def test_removed_client_is_not_told(world: World, signed_in: str) -> None:
    receiver = Receiver(world)
    set_options(world, post_logout_redirect_uris=(BACK,))
    logout(world, id_token_hint=signed_in)
    assert receiver.requests == []


def test_id_token_of_a_retired_key_asks_the_person(world: World, signed_in: str) -> None:
    asyncio.run(signing_keys.rotate(world.smart, "RS256"))
    assert Page(logout(world, id_token_hint="x.y.z").text).action == "/oauth/logout/confirm"
    Receiver(world)
    logout(world, id_token_hint=signed_in)
    assert not is_signed_in(world)


def test_app_names_on_the_confirmation_page_are_escaped(world: World, signed_in: str) -> None:
    change_client(world, name="<b>App</b>")
    assert "<b>App" not in logout(world, client_id="demo-public").text
