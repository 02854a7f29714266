"""Redirect URIs, open redirects, mix-up, response splitting, and repeated or mixed parameters."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest

from fhir_server.smart import demo
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.context import digest
from fhir_server.web.forms import local_path
from tests.attacks.environment import House
from tests.smart.environment import CHALLENGE, ORIGIN, VERIFIER, Page, World, query

HERE = "https://app.example/callback"
EVIL = "https://evil.example"


@pytest.fixture
def app(world: World) -> World:
    """With an app whose only redirect URI is ``HERE``."""
    client = Client("web-app", "Web app", "app", "client_secret", "patient/*.rs launch/patient", (HERE,), secret_hash=digest("s"))
    asyncio.run(clients.save(world.store, client))
    return world


VARIANTS = (
    *("HTTPS://app.example/callback", "https://APP.example/callback", "http://app.example/callback", "//app.example/callback", "/callback"),
    *("https://app.example:443/callback", "https://app.example:8443/callback", "https://app.example./callback", "https://app.example"),
    *("https://app.example/", "https://app.example/Callback", "https://app.example/callback/", "https://app.example//callback"),
    *("https://app.example/x/../callback", "https://app.example/./callback", "https://app.example/callback/..", f"{HERE};x", f"{HERE}x"),
    *(
        "https://app.example/%63allback",
        "https://app.example/callback%2F",
        "https%3A%2F%2Fapp.example%2Fcallback",
        f"{HERE}%00",
        f"{HERE}.",
    ),
    *(
        f"{HERE}?",
        f"{HERE}?a=b",
        f"{HERE}?code=x&state=y",
        f"{HERE}#",
        f"{HERE}#x",
        f"{HERE}&x=1",
        f"{HERE}*",
        "https://*.example/callback",
    ),
    *("https://user@app.example/callback", "https://user:pass@app.example/callback", "https://app.example@evil.example/callback"),
    *(
        "https://evil.example\\@app.example/callback",
        "https://evil.example#@app.example/callback",
        "https://evil.example?https://app.example",
    ),
    *("https://app.example.evil.example/callback", "https://evilapp.example/callback", "https://app.example%2eevil.example/callback"),
    *("https://ａpp.example/callback", "https://аpp.example/callback", f" {HERE}", f"{HERE} ", f"{HERE}\n", f"{HERE}\r\nSet-Cookie: a=b"),
    *(f"{HERE} {EVIL}", f"{HERE},{EVIL}", "javascript:alert(1)", "data:text/html,x", "urn:ietf:wg:oauth:2.0:oob", "", "null", EVIL),
)


@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
@pytest.mark.parametrize("faulty", [False, True], ids=["sound", "faulty"])
def test_redirect_uri_variants_are_never_followed(app: World, variant: str, faulty: bool) -> None:
    more: dict[str, str | None] = {"scope": "nonsense"} if faulty else {}
    answer = app.authorize(**{"client_id": "web-app", "redirect_uri": variant, **more})
    assert (answer.status_code, "location" in answer.headers, "refresh" in answer.headers) == (400, False, False)


def test_redirect_uri_equal_to_the_registered_one_is_followed(app: World) -> None:
    """The control of the variants: a valid and an invalid request."""
    assert app.authorize(client_id="web-app", redirect_uri=HERE).status_code == 303
    assert app.authorize(client_id="web-app", redirect_uri=HERE, scope="nonsense").headers["location"].startswith(f"{HERE}?")


@pytest.mark.parametrize("variant", [f"{HERE}/", f"{HERE}?", HERE.upper(), "", None, EVIL])
def test_redirect_uri_variants_at_the_exchange_are_refused(app: World, variant: str | None) -> None:
    code = app.code(client_id="web-app", redirect_uri=HERE)
    assert app.exchange(code, ("web-app", "s"), redirect_uri=variant).json()["error"] == "invalid_grant"
    assert app.exchange(code, ("web-app", "s"), redirect_uri=HERE).status_code == 200


# mix-up (RFC 9207)


def test_mix_up_every_authorization_response_names_the_issuer(world: World) -> None:
    allowed = world.submit(world.consent_page(), decision="allow")
    denied = world.submit(world.consent_page(), decision="deny")
    faulty = [world.authorize(**bad) for bad in ({"scope": "x"}, {"aud": EVIL}, {"response_type": "token"}, {"code_challenge": None})]
    silent = world.authorize(prompt="none")
    for answer in (allowed, denied, silent, *faulty):
        assert query(answer.headers["location"])["iss"] == ORIGIN
    assert ["code" in query(a.headers["location"]) for a in (allowed, silent, denied, *faulty)] == [True, True] + [False] * 5


def test_mix_up_discovery_announces_the_iss_parameter(world: World) -> None:
    for path in ("/.well-known/openid-configuration", "/fhir/.well-known/smart-configuration"):
        told = world.http.get(path).json()
        assert told["authorization_response_iss_parameter_supported"] is True
        assert told["issuer"] == ORIGIN


def test_mix_up_iss_parameter_of_the_request_is_not_echoed(world: World) -> None:
    answer = world.http.get("/oauth/authorize", params=world.asked(scope="x") | {"iss": EVIL})
    assert query(answer.headers["location"])["iss"] == ORIGIN
    assert answer.headers["location"].count("iss=") == 1


# response splitting


@pytest.mark.parametrize(
    "state", ["x\r\nSet-Cookie: session=evil", "x\nLocation: https://evil.example", "x\r\n\r\n<script>", "\x00", "x\u2028y"]
)
@pytest.mark.parametrize("decision", ["allow", "deny"])
def test_response_splitting_in_state_stays_encoded_in_location(world: World, state: str, decision: str) -> None:
    for answer in (world.submit(world.consent_page(state=state), decision=decision), world.authorize(state=state, scope="x")):
        location = answer.headers["location"]
        assert location.isascii() and location.isprintable()
        assert location.startswith(f"{demo.REDIRECT}?")
        assert query(location)["state"] == state
        assert "evil" not in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize("uri", [f"{HERE}\r\nSet-Cookie: a=b", f"{HERE}\n", f"{HERE} x", f"{HERE}\x00", f"{HERE}#x", "javascript:alert(1)"])
def test_response_splitting_redirect_uri_is_not_registered(world: World, uri: str) -> None:
    with pytest.raises(ValueError, match="redirect URI"):
        asyncio.run(clients.save(world.store, Client("x", "X", "app", "none", "patient/*.rs", (uri,))))
    metadata: dict[str, Any] = {"client_name": "Heart diary", "token_endpoint_auth_method": "none"}
    assert world.http.post("/oauth/register", json=metadata | {"redirect_uris": [uri]}).status_code == 400
    assert world.http.post("/oauth/register", json=metadata | {"redirect_uris": [HERE]}).status_code == 201


@pytest.mark.parametrize("name", ["next", "request"])
def test_response_splitting_in_next_or_request_stays_out_of_headers(world: World, name: str) -> None:
    value = "/x\r\nSet-Cookie: session=evil"
    fields = dict(Page(world.http.get("/sign-in").text).sent) | {"username": "adult", "password": demo.PASSWORD, name: value}
    answer = world.http.post("/sign-in", data=fields)
    assert answer.status_code == 303
    assert "\n" not in answer.headers["location"] and "evil" not in answer.headers["set-cookie"]


# open redirects

TARGETS = (
    *(
        EVIL,
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "evil",
        "/\tevil.example",
        "/ /x\n",
        "///evil.example",
    ),
    *("", "https:evil.example", "/\r//evil.example", "http://127.0.0.1:8000@evil.example/", "//evil.example/%2e%2e"),
)


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_open_redirect_after_sign_in_falls_back_to_start_page(world: World, target: str) -> None:
    assert local_path(target) == "/"
    page = world.http.get("/sign-in", params={"next": target})
    fields = dict(Page(page.text).sent) | {"username": "adult", "password": demo.PASSWORD}
    assert world.http.post("/sign-in", data=fields).headers["location"] == "/"


def test_open_redirect_check_allows_local_paths(world: World) -> None:
    """The control."""
    page = world.http.get("/sign-in", params={"next": "/portal/records?x=1"})
    fields = dict(Page(page.text).sent) | {"username": "adult", "password": demo.PASSWORD}
    assert world.http.post("/sign-in", data=fields).headers["location"] == "/portal/records?x=1"


NAMES = (
    "next",
    "return",
    "returnTo",
    "return_to",
    "redirect",
    "redirect_uri",
    "post_logout_redirect_uri",
    "target",
    "url",
    "continue",
    "iss",
)


@pytest.mark.parametrize("username", [None, "adult", "clinician"])
def test_open_redirect_no_page_redirects_to_a_given_url(house: House, username: str | None) -> None:
    visitor = house.signed_in(username) if username else house.visitor()
    seen = set()
    for path in house.pages():
        answer = visitor.browser.get(path, params=dict.fromkeys(NAMES, EVIL))
        seen.add(answer.status_code)
        assert urlsplit(answer.headers.get("location", "/")).netloc == "", path
        assert f'href="{EVIL}' not in answer.text and "http-equiv" not in answer.text, path
    assert seen >= ({200, 303} if username is None else {200})  # the control: some pages are shown and some redirect


def test_open_redirect_sign_out_ignores_redirect_parameters(house: House) -> None:
    visitor = house.signed_in("adult")
    answer = visitor.send("/", "/sign-out", post_logout_redirect_uri=EVIL, next=EVIL)
    assert (answer.status_code, answer.headers["location"]) == (303, "/signed-out")
    assert house.visitor().browser.get("/signed-out", params={"post_logout_redirect_uri": EVIL}).status_code == 200


@pytest.mark.parametrize("header", ["Host", "X-Forwarded-Host", "Forwarded", "X-Original-URL", "X-Forwarded-Prefix", "Referer", "Origin"])
def test_open_redirect_forged_headers_do_not_change_the_origin(house: House, header: str) -> None:
    """URLs in responses use the origin of the settings and nothing from the request."""
    value = "host=evil.example" if header == "Forwarded" else EVIL if header in ("Referer", "Origin") else "evil.example"
    for username in (None, "adult"):
        visitor = house.signed_in(username) if username else house.visitor()
        seen = 0
        for path in (*house.pages(), "/fhir/metadata", "/fhir/.well-known/smart-configuration"):
            answer = visitor.browser.get(path, headers={header: value})
            seen += house.made.smart.origin in answer.text
            assert "evil.example" not in answer.text and "evil.example" not in str(answer.headers), path
        assert seen  # the control: some responses contain the origin


# repeated parameters, and parameters in both query and body


def _sent(world: World, method: str, pairs: list[tuple[str, str]]) -> httpx.Response:
    if method == "GET":
        return world.http.get("/oauth/authorize?" + urlencode(pairs))
    return world.http.post("/oauth/authorize", content=urlencode(pairs), headers={"Content-Type": "application/x-www-form-urlencoded"})


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_duplicate_parameters_of_an_authorization_request_are_refused(world: World, method: str) -> None:
    """RFC 6749 3.1: the same value, another value, or an empty one."""
    asked = world.asked()
    assert _sent(world, method, list(asked.items())).status_code == 303  # the control
    for name, value in asked.items():
        for again in (value, "other", ""):
            answer = _sent(world, method, [*asked.items(), (name, again)])
            followed = answer.headers.get("location", "")
            assert answer.status_code in (302, 400) and "/oauth/continue" not in followed, name
            assert not followed or query(followed)["error"] == "invalid_request"
            assert followed.startswith((demo.REDIRECT, "")) and "other" not in followed.partition("?")[0]


@pytest.mark.parametrize("name", ["grant_type", "code", "redirect_uri", "code_verifier", "client_id"])
def test_duplicate_parameters_of_a_token_request_are_refused(world: World, name: str) -> None:
    form = {"grant_type": "authorization_code", "code": world.code(), "redirect_uri": demo.REDIRECT, "code_verifier": VERIFIER}
    form["client_id"] = "demo-public"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for again in (form[name], "other", ""):
        answer = world.http.post("/oauth/token", content=urlencode([*form.items(), (name, again)]), headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert world.http.post("/oauth/token", content=urlencode(form), headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/revoke"])
def test_duplicate_parameters_of_introspect_and_revoke_are_refused(world: World, path: str) -> None:
    token = world.tokens()["access_token"]
    auth = ("demo-confidential", demo.SECRET)
    assert world.http.post(path, data={"token": ["garbage", token]}, auth=auth).json()["error"] == "invalid_request"
    assert world.http.post(path, data={"token": "garbage"}, auth=auth).status_code == 200


def test_parameter_pollution_authorize_form_ignores_its_query(world: World) -> None:
    worse = {"client_id": "demo-confidential", "redirect_uri": EVIL, "scope": "user/*.cruds", "code_challenge": "x" * 43}
    answer = world.http.post("/oauth/authorize?" + urlencode(worse), data=world.asked(code_challenge=CHALLENGE))
    page = world.submit(world.sign_in(world.follow(answer), "adult"), patient="adult")
    back = world.submit(page, decision="allow")
    assert back.headers["location"].startswith(demo.REDIRECT)
    assert "user/" not in world.exchange(query(back.headers["location"])["code"]).json()["scope"]


@pytest.mark.parametrize("name", ["code_verifier", "client_id", "code", "redirect_uri"])
def test_parameter_pollution_token_request_ignores_its_query(world: World, name: str) -> None:
    form = {"grant_type": "authorization_code", "code": world.code(), "redirect_uri": demo.REDIRECT, "code_verifier": VERIFIER}
    form["client_id"] = "demo-public"
    part = {key: value for key, value in form.items() if key != name}
    assert world.http.post("/oauth/token?" + urlencode({name: form[name]}), data=part).status_code in (400, 401)
    assert world.http.post("/oauth/token?" + urlencode({name: "other"}), data=form).status_code == 200


def test_parameter_pollution_consent_form_ignores_request_in_url(world: World) -> None:
    page = world.consent_page()
    sent = dict(Page(page.text).sent)
    form, handle = {"token": sent["token"], "shown": sent["shown"], "decision": "allow"}, sent["request"]
    assert world.http.post(f"/oauth/consent?request={handle}", data=form).status_code == 400
    assert world.http.post("/oauth/consent?request=other", data=form | {"request": handle}).status_code == 303
