from __future__ import annotations

import asyncio
import base64
from dataclasses import replace

import httpx
import msgspec
import pytest

from fhir_server.smart.accounts import identity_providers, users
from fhir_server.smart.core.context import MINUTE, REQUEST_LIFE, SECOND
from fhir_server.smart.outbound import client_authentication
from tests.federation.environment import NORTH, OURS, PASSWORD, SECRET, SOUTH, Page, Worlds, query
from tests.smart.environment import VERIFIER

UNLINKED = "This sign-in is not linked to an account here"


def test_sign_in_page_offers_every_provider_and_the_password(worlds: Worlds) -> None:
    page = worlds.ours.http.get("/sign-in").text
    assert "Sign in with North &lt;ID&gt;" in page
    assert "Sign in with South" in page
    assert worlds.ours.sign_in(worlds.ours.http.get("/sign-in?next=/links"), "adult").status_code == 404  # /links is not part of this app
    assert worlds.who() == "Alex Adult"


def test_provider_request_has_openid_pkce_and_fresh_state_and_nonce(worlds: Worlds) -> None:
    first, second = query(worlds.left()), query(worlds.left())
    assert worlds.left().startswith(f"{NORTH}/oauth/authorize?")
    assert first["scope"] == "openid"
    assert first["code_challenge_method"] == "S256"
    assert first["redirect_uri"] == worlds.callback["north"] != worlds.callback["south"]
    assert all(first[name] != second[name] and len(first[name]) >= 43 for name in ("state", "nonce", "code_challenge"))


@pytest.mark.parametrize("provider", ["north", "south"])
def test_linked_subject_signs_in_to_its_account(worlds: Worlds, provider: str) -> None:
    issuer = {"north": NORTH, "south": SOUTH}[provider]
    there = {"north": worlds.north, "south": worlds.south}[provider]
    subject = asyncio.run(worlds.subject(there, "parent-b"))
    asyncio.run(identity_providers.link(worlds.ours.store, issuer, subject, "proxy-full"))
    answer = worlds.signed_in(provider, "parent-b")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert worlds.who() == "Fran Full"


def test_federated_sign_in_replaces_the_session(worlds: Worlds) -> None:
    worlds.ours.sign_in(worlds.ours.http.get("/sign-in"), "adult")
    before = worlds.ours.http.cookies["session"]
    worlds.signed_in()
    after = worlds.ours.http.cookies["session"]
    assert after != before
    assert worlds.who() == "Pat Parent"
    worlds.ours.http.cookies = httpx.Cookies({"session": before})
    assert worlds.who() == ""


def test_app_gets_tokens_after_federated_sign_in(worlds: Worlds) -> None:
    ours = worlds.ours
    page = ours.follow(ours.authorize(aud=f"{OURS}/fhir"))
    handle = dict(Page(page.text).sent)["request"]
    answer = worlds.signed_in(request=handle)
    assert answer.headers["location"] == f"/oauth/continue?request={handle}"
    picker = ours.follow(answer)
    consent = ours.submit(picker, patient="teen")
    code = query(ours.submit(consent, decision="allow").headers["location"])["code"]
    tokens = ours.exchange(code, code_verifier=VERIFIER).json()
    assert tokens["patient"] == "teen"
    assert ours.principal(tokens["access_token"]).username == "parent-a"


def test_prompt_login_requires_a_fresh_sign_in_at_the_provider(worlds: Worlds) -> None:
    ours = worlds.ours
    page = ours.follow(ours.authorize(aud=f"{OURS}/fhir", prompt="login"))
    handle = dict(Page(page.text).sent)["request"]
    asked = query(worlds.left(request=handle))
    assert (asked["prompt"], asked["max_age"]) == ("login", "0")
    assert "prompt" not in query(worlds.left())
    assert worlds.signed_in(request=handle).status_code == 303
    worlds.forged(lambda header, claims: claims.update(auth_time=claims["auth_time"] - 3600))
    assert worlds.signed_in(request=handle).status_code == 400
    worlds.forged(lambda header, claims: claims.pop("auth_time") and None)
    assert worlds.signed_in(request=handle).status_code == 400
    assert worlds.signed_in().status_code == 303  # not required unless a fresh sign-in is


@pytest.mark.parametrize("said", ["long ago", "nothing", "now"])
def test_old_sign_in_at_the_provider_does_not_meet_prompt_login(worlds: Worlds, said: str) -> None:
    """A request that asks for a fresh sign-in waits; another sign-in in the browser, without it, is by an old one at the provider."""
    ours = worlds.ours
    handle = query(ours.authorize(aud=f"{OURS}/fhir", prompt="login").headers["location"])["request"]
    if said == "long ago":
        worlds.forged(lambda header, claims: claims.update(auth_time=claims["auth_time"] - 3600))
    elif said == "nothing":
        worlds.forged(lambda header, claims: claims.pop("auth_time") and None)
    worlds.clock.forward(SECOND)
    assert worlds.signed_in(next="/apps").headers["location"] == "/apps"
    onward = ours.http.get("/oauth/continue", params={"request": handle}).headers["location"]
    assert onward.startswith("/oauth/record" if said == "now" else "/sign-in")


def test_federated_sign_in_continues_only_to_local_paths(worlds: Worlds) -> None:
    assert worlds.signed_in(next="/apps").headers["location"] == "/apps"
    assert worlds.signed_in(next="https://evil.example/").headers["location"] == "/"
    assert worlds.signed_in(next="//evil.example/").headers["location"] == "/"


def test_unlinked_subject_reveals_and_creates_no_account(worlds: Worlds) -> None:
    before = asyncio.run(users.list_all(worlds.ours.store))
    pages = {}
    for username in ("parent-b", "clinician"):  # the server has a parent-b too: user names are not matched
        sub = asyncio.run(worlds.subject(worlds.north, username))
        answer = worlds.signed_in(username=username)
        assert answer.status_code == 400
        assert UNLINKED in answer.text
        assert sub in answer.text
        assert "set-cookie" not in answer.headers
        pages[username] = answer.text.replace(sub, "")
    assert pages["parent-b"] == pages["clinician"]
    assert asyncio.run(users.list_all(worlds.ours.store)) == before
    assert worlds.who() == ""
    assert worlds.signed_in().status_code == 303  # the control


def test_recreated_or_disabled_account_answers_like_an_unlinked_one(worlds: Worlds) -> None:
    store = worlds.ours.store

    async def disabled(value: bool) -> None:
        found = await users.find(store, "parent-a")
        assert found is not None
        await users.save(store, msgspec.structs.replace(found, disabled=value))

    async def reopened() -> None:
        await users.remove(store, "parent-a", worlds.clock())
        await users.create(store, "parent-a", PASSWORD, "patient")

    asyncio.run(disabled(True))
    assert UNLINKED in worlds.signed_in().text
    asyncio.run(disabled(False))
    assert worlds.signed_in().status_code == 303
    asyncio.run(reopened())
    assert UNLINKED in worlds.signed_in().text


def test_provider_tokens_are_not_stored(worlds: Worlds) -> None:
    seen: list[str] = []

    async def note(request: httpx.Request) -> httpx.Response:
        body = await (await worlds.wire.passed(request)).aread()
        seen.extend(str(value) for name, value in httpx.Response(200, content=body).json().items() if name.endswith("_token"))
        return httpx.Response(200, content=body)

    worlds.wire.instead[f"{NORTH}/oauth/token"] = note
    assert worlds.signed_in().status_code == 303
    assert len(seen) == 2
    kept = worlds.kept()
    assert "North <ID>" in kept  # the control: the store holds the provider
    assert not any(token in kept for token in seen)
    assert worlds.states() == 0


def test_unanswered_federated_sign_in_expires(worlds: Worlds) -> None:
    url = worlds.agreed(worlds.left())
    worlds.clock.forward(REQUEST_LIFE + MINUTE)
    assert worlds.states() == 0
    assert worlds.back(url).status_code == 400


def test_provider_secret_is_encrypted_with_the_secret_key(worlds: Worlds) -> None:
    sealed = replace(worlds.ours.smart, key="k" * 32)
    provider = identity_providers.Provider("https://id.example", "X", "us", "client_secret")
    asyncio.run(identity_providers.add(sealed, provider, SECRET))
    kept = asyncio.run(identity_providers.find(sealed.store, provider.id))
    assert kept is not None and SECRET.encode() not in kept.secret
    assert identity_providers.client_secret(sealed, kept) == SECRET
    with pytest.raises(LookupError):
        identity_providers.client_secret(replace(sealed, key="other" * 8), kept)


@pytest.mark.parametrize(
    ("supported", "header"), [([], True), (["client_secret_post"], False), (["client_secret_post", "client_secret_basic"], True)]
)
def test_provider_secret_is_sent_by_a_supported_method(worlds: Worlds, supported: list[str], header: bool) -> None:
    async def configured(request: httpx.Request) -> httpx.Response:
        stated = httpx.Response(200, content=await (await worlds.wire.passed(request)).aread()).json()
        return httpx.Response(200, json=stated | {"token_endpoint_auth_methods_supported": supported})

    worlds.wire.instead["openid-configuration"] = configured
    assert worlds.signed_in().status_code == 303
    (sent,) = [call for call in worlds.wire.calls if call.method == "POST"]
    assert ("authorization" in sent.headers) == header
    assert (SECRET in sent.content.decode()) != header


def test_basic_credentials_are_form_encoded() -> None:
    _, headers = client_authentication.authenticate_by_secret("us", "a:b&ö", "client_secret_basic", NORTH, "")
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"us:a%3Ab%26%C3%B6"


@pytest.mark.parametrize(
    ("scope", "aud", "fine"),
    [
        ("openid", None, True),
        ("openid", f"{NORTH}/fhir", True),
        ("openid", f"{SOUTH}/fhir", False),
        ("openid", "", False),
        ("openid patient/*.rs", None, False),
        ("openid fhirUser offline_access", None, True),
        ("openid fhirUser user/*.rs", None, False),
    ],
)
def test_smart_25_26_only_plain_openid_connect_may_omit_aud(worlds: Worlds, scope: str, aud: str | None, fine: bool) -> None:
    there = worlds.north
    answer = there.follow(there.authorize(scope=scope, aud=aud))
    assert answer.is_redirect != fine
    assert fine or query(answer.headers["location"])["error"] == "invalid_request"


def test_unreachable_provider_returns_503_with_other_sign_in_options(worlds: Worlds) -> None:
    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("down", request=request)

    worlds.wire.instead[f"{NORTH}/.well-known/openid-configuration"] = down
    answer = worlds.leave()
    assert (answer.status_code, "not available at the moment" in answer.text) == (503, True)
    assert "/sign-in?" in answer.text
