"""Sign-in with an identity provider: a response that does not match this browser's request shows an error page and stores nothing."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from authlib.oidc.core.util import create_half_hash
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from fhir_server.smart.accounts import identity_providers
from fhir_server.smart.core import signing_keys
from fhir_server.smart.outbound.json_client import MAX_BYTES
from tests.federation.environment import FEDERATED, NORTH, OURS, SOUTH, Worlds
from tests.smart.environment import Browser, claims_of

MISMATCH = "does not match a sign-in that you started"
UNVERIFIED = "could not be verified"


def changed(url: str, **changes: str | None) -> str:
    given = dict(parse_qsl(urlsplit(url).query)) | changes
    return url.partition("?")[0] + "?" + urlencode({name: value for name, value in given.items() if value is not None})


def refused(worlds: Worlds, answer: httpx.Response, words: str) -> None:
    assert answer.status_code == 400, answer.headers
    assert words in answer.text
    assert 'href="/sign-in?' in answer.text
    assert "set-cookie" not in answer.headers
    assert worlds.who() == ""
    assert worlds.states() == 0


def test_federation_valid_response_signs_in(worlds: Worlds) -> None:
    assert worlds.back(worlds.agreed(worlds.left())).status_code == 303
    assert worlds.who() == "Pat Parent"


def test_federation_replayed_response_returns_400(worlds: Worlds) -> None:
    url = worlds.agreed(worlds.left())
    assert worlds.back(url).status_code == 303
    worlds.ours.http.cookies.clear()
    refused(worlds, worlds.back(url), MISMATCH)


@pytest.mark.parametrize("fetched", [True, False])
def test_federation_response_in_another_browser_is_invalidated(worlds: Worlds, fetched: bool) -> None:
    """Login CSRF: the victim's browser receives the attacker's response, with or without a session cookie."""
    url = worlds.agreed(worlds.left())
    victim = Browser(worlds.ours.app)
    if fetched:
        victim.get("/sign-in")
    answer = worlds.back(url, victim)
    assert (answer.status_code, MISMATCH in answer.text) == (400, True)
    assert worlds.who(victim) == ""
    refused(worlds, worlds.back(url), MISMATCH)


@pytest.mark.parametrize("state", [None, "", "made-up"])
def test_federation_unsolicited_response_returns_400(worlds: Worlds, state: str | None) -> None:
    worlds.ours.http.get("/sign-in")
    refused(worlds, worlds.back(changed(f"{worlds.callback['north']}?code=x&iss={NORTH}", state=state)), MISMATCH)


@pytest.mark.parametrize("iss", [SOUTH, NORTH + "/", None])
def test_federation_wrong_or_missing_iss_is_refused_before_exchange(worlds: Worlds, iss: str | None) -> None:
    url = worlds.agreed(worlds.left())
    assert changed(url) and f"iss={NORTH.replace(':', '%3A').replace('/', '%2F')}" in url
    refused(worlds, worlds.back(changed(url, iss=iss)), MISMATCH)
    assert worlds.wire.to("/oauth/token") == 0


def test_federation_mix_up_code_never_reaches_another_provider(worlds: Worlds) -> None:
    """Mix-up: the attacker controls the south provider, which redirects the browser to the north one (RFC 9700 4.4)."""
    asked = dict(parse_qsl(urlsplit(worlds.left("south")).query))
    passed_on = dict(parse_qsl(urlsplit(worlds.left("north")).query)) | {"state": asked["state"], "code_challenge": asked["code_challenge"]}
    honest = worlds.agreed(f"{NORTH}/oauth/authorize?{urlencode(passed_on)}")
    for answer in (honest, changed(honest, iss=SOUTH), changed(honest, iss=None)):
        page = worlds.back(answer)
        assert (page.status_code, worlds.who()) == (400, "")
    assert worlds.wire.to("/oauth/token") == 0


def test_federation_mix_up_without_iss_is_detected_by_redirect_uri(worlds: Worlds) -> None:
    async def silent(request: httpx.Request) -> httpx.Response:
        stated = json.loads(await (await worlds.wire.passed(request)).aread())
        del stated["authorization_response_iss_parameter_supported"]
        return httpx.Response(200, json=stated)

    worlds.wire.instead["openid-configuration"] = silent
    url = changed(worlds.agreed(worlds.left()), iss=None)
    refused(worlds, worlds.back(url.replace(worlds.callback["north"], worlds.callback["south"])), MISMATCH)
    assert worlds.back(changed(worlds.agreed(worlds.left()), iss=None)).status_code == 303


@pytest.mark.parametrize("name", ["code", "state", "iss"])
def test_federation_repeated_parameter_returns_400(worlds: Worlds, name: str) -> None:
    url = worlds.agreed(worlds.left())
    again = dict(parse_qsl(urlsplit(url).query))[name]
    refused(worlds, worlds.back(f"{url}&{urlencode({name: again})}"), MISMATCH)


def test_federation_denial_shows_notice_and_changes_nothing(worlds: Worlds) -> None:
    refused(worlds, worlds.back(worlds.agreed(worlds.left(), decision="deny")), "The sign-in was canceled")


@pytest.mark.parametrize(
    ("error", "words"), [("server_error", "reported an error"), ("<script>", "reported an error"), ("access_denied", "was canceled")]
)
def test_federation_error_description_is_not_displayed(worlds: Worlds, error: str, words: str) -> None:
    url = worlds.agreed(worlds.left())
    answer = worlds.back(changed(url, code=None, error=error, error_description="<b>call 555</b>"))
    refused(worlds, answer, words)
    assert "555" not in answer.text and "<script>" not in answer.text


def _unsigned(claims: dict[str, Any]) -> str:
    parts = ({"alg": "none"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


Change = Callable[[dict[str, Any], dict[str, Any]], Any]
FORGERIES: dict[str, Change] = {
    "another nonce": lambda header, claims: claims.update(nonce="n" * 43),
    "no nonce": lambda header, claims: claims.pop("nonce") and None,
    "another audience": lambda header, claims: claims.update(aud="them"),
    "two audiences and no azp": lambda header, claims: claims.update(aud=["us", "them"]),
    "two audiences and another azp": lambda header, claims: claims.update(aud=["us", "them"], azp="them"),
    "another azp": lambda header, claims: claims.update(azp="them"),
    "another issuer": lambda header, claims: claims.update(iss=SOUTH),
    "an issuer with a slash": lambda header, claims: claims.update(iss=NORTH + "/"),
    "run out": lambda header, claims: claims.update(exp=claims["iat"] - 61),
    "no end": lambda header, claims: claims.pop("exp") and None,
    "made tomorrow": lambda header, claims: claims.update(iat=claims["iat"] + 86_400),
    "no time": lambda header, claims: claims.pop("iat") and None,
    "not yet": lambda header, claims: claims.update(nbf=claims["iat"] + 3600),
    "no subject": lambda header, claims: claims.pop("sub") and None,
    "a subject that is no text": lambda header, claims: claims.update(sub=["adult"]),
    "beside another access token": lambda header, claims: claims.update(at_hash=create_half_hash("other", "RS256").decode()),
    "alg none": lambda header, claims: _unsigned(claims),
    "a key nobody published": lambda header, claims: header.update(kid="unknown"),
    "no token": lambda header, claims: "",
    "not a token": lambda header, claims: "a.b.c",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_federation_forged_id_token_does_not_sign_in(worlds: Worlds, forgery: str) -> None:
    worlds.forged(FORGERIES[forgery])
    refused(worlds, worlds.signed_in(), UNVERIFIED)


def test_federation_forged_id_token_signature_does_not_sign_in(worlds: Worlds) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(await (await worlds.wire.passed(request)).aread())
        claims = claims_of(body["id_token"])[1]
        kid, _ = await signing_keys.current_key(worlds.north.smart, "RS256")
        strange = RSAKey.generate_key(2048)
        return httpx.Response(
            200, json=body | {"id_token": jwt.encode({"alg": "RS256", "kid": kid}, claims, strange, algorithms=["RS256"])}
        )

    worlds.wire.instead[f"{NORTH}/oauth/token"] = answer
    refused(worlds, worlds.signed_in(), UNVERIFIED)


def test_federation_public_key_is_not_used_as_shared_secret(worlds: Worlds) -> None:
    published = asyncio.run(_jwks(worlds))

    def forge(header: dict[str, Any], claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(published), algorithms=["HS256"])

    worlds.forged(forge)
    refused(worlds, worlds.signed_in(), UNVERIFIED)


def test_federation_shared_secret_in_jwks_is_not_used_as_key(worlds: Worlds) -> None:
    shared = OctKey.generate_key(256, {"kid": "shared", "alg": "HS256", "use": "sig"})

    async def published(request: httpx.Request) -> httpx.Response:
        real = json.loads(await (await worlds.wire.passed(request)).aread())
        return httpx.Response(200, json={"keys": [*real["keys"], shared.as_dict(private=True)]})

    worlds.wire.instead["/oauth/jwks"] = published
    assert worlds.signed_in().status_code == 303  # the control
    worlds.ours.http.cookies.clear()
    worlds.forged(lambda header, claims: jwt.encode({"alg": "HS256", "kid": "shared"}, claims, shared, algorithms=["HS256"]))
    refused(worlds, worlds.signed_in(), UNVERIFIED)


async def _jwks(worlds: Worlds) -> bytes:
    async with httpx.AsyncClient(transport=worlds.wire) as client:
        return (await client.get(f"{NORTH}/oauth/jwks")).content


def test_federation_id_token_with_valid_azp_and_at_hash_is_accepted(worlds: Worlds) -> None:
    """The control of the forgeries: a valid response."""

    async def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(await (await worlds.wire.passed(request)).aread())
        header, claims = claims_of(body["id_token"])
        claims |= {"aud": ["us", "them"], "azp": "us", "at_hash": create_half_hash(body["access_token"], "RS256").decode()}
        return httpx.Response(200, json=body | {"id_token": await worlds.signed(header, claims)})

    worlds.wire.instead[f"{NORTH}/oauth/token"] = answer
    assert worlds.signed_in().status_code == 303


def _down(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("down")


@pytest.mark.parametrize(
    "instead",
    [
        _down,
        lambda request: httpx.Response(500, json={}),
        lambda request: httpx.Response(302, headers={"location": "https://evil.example/"}),
        lambda request: httpx.Response(200, text="<html>"),
        lambda request: httpx.Response(200, content=b'{"a":"' + b"x" * MAX_BYTES + b'"}'),
    ],
)
@pytest.mark.parametrize("end", ["openid-configuration", "/oauth/token", "/oauth/jwks"])
def test_federation_provider_failure_shows_page_and_stores_nothing(worlds: Worlds, end: str, instead: Any) -> None:
    worlds.wire.instead[end] = instead
    answer = worlds.leave() if end == "openid-configuration" else worlds.signed_in()
    assert answer.status_code == (503 if "not available at the moment" in answer.text else 400)
    assert 'href="/sign-in?' in answer.text
    assert (worlds.who(), worlds.states()) == ("", 0)
    assert not any(call.url.host == "evil.example" for call in worlds.wire.calls)


@pytest.mark.parametrize(
    "stated",
    [
        {"issuer": SOUTH},
        {"issuer": NORTH + "/"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "http://internal.example/token"},
        {"jwks_uri": "http://169.254.169.254/keys"},
        {"jwks_uri": None},
    ],
)
def test_federation_discovery_with_wrong_issuer_or_unsafe_url_fails(worlds: Worlds, stated: dict[str, Any]) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=json.loads(await (await worlds.wire.passed(request)).aread()) | stated)

    worlds.wire.instead["openid-configuration"] = answer
    answer_ = worlds.leave()
    assert answer_.status_code == 503
    assert worlds.states() == 0


def test_federation_removed_provider_does_not_sign_in(worlds: Worlds) -> None:
    url = worlds.agreed(worlds.left())
    asyncio.run(identity_providers.remove(worlds.ours.store, NORTH))
    refused(worlds, worlds.back(url), MISMATCH)


def test_federation_unknown_provider_or_expired_request_shows_page(worlds: Worlds) -> None:
    worlds.ours.http.get("/sign-in")
    assert worlds.ours.http.get("/sign-in/with/none").status_code == 400
    answer = worlds.ours.http.get(f"/sign-in/with/{FEDERATED['north'].id}?request=gone")
    assert "has expired" in answer.text
    assert worlds.wire.calls == []


def test_federation_start_in_fresh_browser_redirects_to_sign_in(worlds: Worlds) -> None:
    answer = Browser(worlds.ours.app).get(f"/sign-in/with/{FEDERATED['north'].id}?next=/apps")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?request=&next=%2Fapps")


def test_federation_unlinking_or_provider_removal_ends_sessions(worlds: Worlds) -> None:
    subject = asyncio.run(worlds.subject(worlds.north, "adult"))
    worlds.signed_in()
    assert worlds.who() == "Pat Parent"
    assert asyncio.run(identity_providers.unlink(worlds.ours.store, NORTH, subject))
    assert worlds.who() == ""
    assert "not linked to an account here" in worlds.signed_in().text
    asyncio.run(identity_providers.link(worlds.ours.store, NORTH, subject, "parent-a"))
    worlds.signed_in()
    assert asyncio.run(identity_providers.remove(worlds.ours.store, NORTH))
    assert worlds.who() == ""
    assert asyncio.run(identity_providers.list_linked_identities(worlds.ours.store)) == ()


def test_federation_subject_is_scoped_to_its_provider(worlds: Worlds) -> None:
    assert asyncio.run(worlds.subject(worlds.north, "adult")) == asyncio.run(worlds.subject(worlds.south, "adult"))
    assert "not linked to an account here" in worlds.signed_in("south").text
    assert worlds.callback["south"].startswith(OURS)
