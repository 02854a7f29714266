"""Attacks on silent answers, logout, pushed requests, form posts and userinfo."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from fhir_server.web.public_fetch import Network
from tests.smart.back_channel_helpers import tell
from tests.smart.environment import ORIGIN, Page, World, query
from tests.smart.jwks_server import mode
from tests.smart.openid_helpers import PostedForm, change_client, set_options, silent
from tests.smart.registration_helpers import made

EVIL = "https://evil.example/callback"


def signed_in(world: World, username: str = "adult") -> None:
    world.http.cookies.clear()
    world.sign_in(world.http.get("/sign-in"), username)


def is_signed_in(world: World) -> bool:
    return silent(world).get("error") != "login_required"


# open redirects


def test_open_redirect_by_a_silent_request_of_a_self_registered_app_is_none(world: World) -> None:
    evil = made(world, redirect_uris=[EVIL], scope="openid patient/*.rs launch/patient")["client_id"]
    asked = world.asked(client_id=evil, redirect_uri=EVIL, scope="openid", prompt="none")
    for _ in range(2):
        for headers in ({}, {"Sec-Fetch-Dest": "document"}):
            answer = world.http.get("/oauth/authorize", params=asked, headers=headers)
            assert (answer.status_code, "location" in answer.headers) == (400, False)
        framed = world.http.get("/oauth/authorize", params=asked, headers={"Sec-Fetch-Dest": "iframe"})
        assert framed.headers["location"].startswith(EVIL)  # the window stays where it is
        signed_in(world)


@pytest.mark.parametrize("with_hint", [True, False])
def test_open_redirect_by_logout_of_a_self_registered_app_is_a_link_only(world: World, with_hint: bool) -> None:
    """The attacker has an account of their own, and so an id_token for their own app."""
    app = made(world, redirect_uris=[EVIL], scope="openid", post_logout_redirect_uris=["https://evil.example/"])
    changes = {"client_id": app["client_id"], "redirect_uri": EVIL, "scope": "openid"}
    hint = world.exchange(world.code("parent-a", "", **changes), client_id=app["client_id"], redirect_uri=EVIL).json()["id_token"]
    asked = {"post_logout_redirect_uri": "https://evil.example/", "client_id": app["client_id"]}
    asked |= {"id_token_hint": hint} if with_hint else {}
    world.http.cookies.clear()
    page = world.follow(world.http.get("/oauth/logout", params=asked))
    assert (page.status_code, "location" in page.headers, "http-equiv" in page.text) == (200, False, False)
    signed_in(world)
    page = world.follow(world.http.get("/oauth/logout", params=asked))
    assert (page.status_code, Page(page.text).action) == (200, "/oauth/logout/confirm")


@pytest.mark.parametrize(
    "uri",
    ["https://evil.example/", "//evil.example", "https://app.example/out/../x", "https://app.example/out?x", "https://app.example/out#x"],
)
def test_open_redirect_by_an_unregistered_post_logout_uri_fails(world: World, uri: str) -> None:
    set_options(world, post_logout_redirect_uris=("https://app.example/out",))
    hint = world.tokens()["id_token"]
    page = world.follow(world.http.get("/oauth/logout", params={"id_token_hint": hint, "post_logout_redirect_uri": uri}))
    assert (page.status_code, uri in page.text) == (200, False)
    hint = world.tokens()["id_token"]
    asked = {"id_token_hint": hint, "post_logout_redirect_uri": "https://app.example/out"}
    assert world.follow(world.http.get("/oauth/logout", params=asked)).headers["location"] == "https://app.example/out"  # the control


# signing people out


def test_csrf_of_logout_needs_the_persons_answer(world: World) -> None:
    other = world.tokens("parent-a", "teen")["id_token"]
    signed_in(world)
    for asked in (
        {"ui_locales": "en"},
        {"client_id": "demo-public"},
        {"id_token_hint": other},
        {"id_token_hint": "x.y.z"},
        {"logout_hint": "adult"},
    ):
        for answer in (world.http.get("/oauth/logout", params=asked), world.http.post("/oauth/logout", data=asked)):
            page = world.follow(answer)
            assert Page(page.text).action == "/oauth/logout/confirm"
            forged = dict(Page(page.text).sent) | {"decision": "sign-out"}
            assert world.http.post("/oauth/logout/confirm", data=forged | {"token": "forged"}).status_code == 403
            assert world.http.post("/oauth/logout/confirm", data=forged, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert is_signed_in(world)
    world.submit(page, decision="sign-out")
    assert not is_signed_in(world)  # the control


def test_csrf_of_logout_with_the_victims_token_of_another_session_asks(world: World) -> None:
    old = world.tokens()["id_token"]
    signed_in(world)
    page = world.follow(world.http.get("/oauth/logout", params={"id_token_hint": old}))
    assert Page(page.text).action == "/oauth/logout/confirm"
    assert is_signed_in(world)


# back-channel


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fc00::1"])
def test_ssrf_by_a_back_channel_logout_uri_reaches_no_private_address(world: World, address: str) -> None:
    called: list[httpx.Request] = []
    addresses = [(address,), ("93.184.216.34", address), ("93.184.216.34",)]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses[0]

    def answer(request: httpx.Request) -> httpx.Response:
        called.append(request)
        return httpx.Response(302, headers={"Location": f"http://[{address}]/" if ":" in address else f"http://{address}/"})

    object.__setattr__(world.smart, "network", Network(resolve, httpx.MockTransport(answer)))
    set_options(world, backchannel_logout_uri="https://app.example/logout")
    for _ in range(3):
        mode(world, "test")
        hint = world.tokens()["id_token"]
        mode(world, "production")
        world.follow(world.http.get("/oauth/logout", params={"id_token_hint": hint}))
        tell(world)
        addresses[:1] = [] if len(addresses) > 1 else addresses[:1]
    assert [request.url.host for request in called] == ["93.184.216.34"]  # the control; its redirect was not followed


# pushed requests


def test_pushed_request_of_another_client_is_refused_and_kept(world: World) -> None:
    request_uri = world.post("/oauth/par", **world.asked()).json()["request_uri"]
    stolen = world.http.get("/oauth/authorize", params={"client_id": "demo-confidential", "request_uri": request_uri})
    assert (stolen.status_code, "location" in stolen.headers) == (400, False)
    own = world.http.get("/oauth/authorize", params={"client_id": "demo-public", "request_uri": request_uri})
    assert own.headers["location"].startswith("/oauth/continue")


def test_pushed_request_is_used_once(world: World) -> None:
    request_uri = world.post("/oauth/par", **world.asked()).json()["request_uri"]

    async def all_at_once() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN) as client:
            asked = {"client_id": "demo-public", "request_uri": request_uri}
            sent = [client.get("/oauth/authorize", params=asked) for _ in range(4)]
            return sorted(answer.status_code for answer in await asyncio.gather(*sent))

    assert asyncio.run(all_at_once()) == [303, 400, 400, 400]


def test_pushed_request_names_are_not_fetched(world: World) -> None:
    for uri in ("https://evil.example/request.jwt", "urn:ietf:params:oauth:request_uri", "URN:IETF:params:oauth:request_uri:x"):
        answer = world.authorize(request_uri=uri)
        assert query(answer.headers["location"])["error"] == "request_uri_not_supported"


# pages


SCRIPT = '"><script>alert(1)</script>'


def test_script_injection_into_a_form_post_page_is_escaped(world: World) -> None:
    for answer in (
        world.submit(world.consent_page(response_mode="form_post", state=SCRIPT), decision="allow"),
        world.authorize(response_mode="form_post", state=SCRIPT, aud="https://elsewhere.example"),
    ):
        assert PostedForm(answer).fields["state"] == SCRIPT
        assert answer.text.count("<script>") == 1  # the page's own, which the policy names by its hash
        assert "unsafe-inline" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize("uri", ["javascript:alert(1)", "app:/callback"])
def test_script_injection_by_a_form_post_to_another_scheme_is_refused(world: World, uri: str) -> None:
    if uri.startswith("javascript"):
        assert world.authorize(response_mode="form_post", redirect_uri=uri).status_code == 400
        return
    change_client(world, redirect_uris=(uri,))
    answer = world.authorize(response_mode="form_post", redirect_uri=uri)
    assert (answer.text, query(answer.headers["location"])["error"]) == ("", "invalid_request")


# userinfo


def test_userinfo_needs_a_token_of_a_sign_in(world: World) -> None:
    fhir_only = world.tokens(scope="launch/patient patient/*.rs fhirUser")["access_token"]
    backend = world.backend().json()["access_token"]
    for token, status in ((fhir_only, 403), (backend, 401), ("made-up", 401)):
        answer = world.http.get("/oauth/userinfo", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, "sub" in answer.text) == (status, False)


def test_userinfo_ignores_the_session_cookie(world: World) -> None:
    signed_in(world)
    assert world.http.get("/oauth/userinfo").status_code == 401
