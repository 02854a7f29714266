"""Userinfo (OpenID Connect Core 5.3, 5.4), id_tokens at refresh (12.2), ``amr`` and ``acr`` (2)."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import httpx
import msgspec
import pytest

from fhir_server.smart.accounts import users
from fhir_server.smart.core.context import HOUR, MINUTE, SECOND
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.smart.tokens import id_tokens
from tests.smart.environment import BASE, World, claims_of
from tests.smart.openid_helpers import PLAIN, allow_profile, change_client


def userinfo(world: World, token: str, method: str = "GET", scheme: str = "Bearer") -> httpx.Response:
    return world.http.request(method, "/oauth/userinfo", headers={"Authorization": f"{scheme} {token}", "Origin": "https://app.example"})


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_core_5_3_userinfo_has_the_claims_of_the_scopes(world: World, method: str) -> None:
    allow_profile(world)
    tokens = world.tokens(scope=PLAIN, aud=None)
    answer = userinfo(world, tokens["access_token"], method)
    claims = answer.json()
    assert answer.headers["content-type"].startswith("application/json")
    assert (answer.headers["access-control-allow-origin"], answer.headers["cache-control"]) == ("*", "no-store")
    assert claims["sub"] == claims_of(tokens["id_token"])[1]["sub"]
    assert (claims["name"], claims["fhirUser"]) == ("Alex Adult", f"{BASE}/Patient/adult")
    assert set(claims) <= {"sub", "name", "updated_at", "fhirUser"}


def test_core_5_4_claims_without_their_scope_are_left_out(world: World) -> None:
    assert set(userinfo(world, world.tokens(scope="openid", aud=None)["access_token"]).json()) == {"sub"}


def test_core_5_3_3_errors_are_those_of_bearer_tokens(world: World) -> None:
    tokens = world.tokens()
    missing, wrong = world.http.get("/oauth/userinfo"), userinfo(world, "made-up")
    assert (missing.status_code, missing.headers["www-authenticate"]) == (401, 'Bearer realm="userinfo"')
    assert (wrong.status_code, "invalid_token" in wrong.headers["www-authenticate"]) == (401, True)
    refresh, basic = userinfo(world, tokens["refresh_token"]), userinfo(world, tokens["access_token"], scheme="Basic")
    assert (refresh.status_code, basic.status_code) == (401, 401)
    world.clock.forward(HOUR)
    assert userinfo(world, tokens["access_token"]).status_code == 401


def test_userinfo_for_a_token_without_openid_is_insufficient_scope(world: World) -> None:
    answer = userinfo(world, world.tokens(scope="fhirUser launch/patient patient/*.rs")["access_token"])
    assert (answer.status_code, "insufficient_scope" in answer.headers["www-authenticate"]) == (403, True)
    assert "sub" not in answer.json()


def test_userinfo_takes_no_token_from_query_or_body(world: World) -> None:
    token = world.tokens()["access_token"]
    assert world.http.get(f"/oauth/userinfo?access_token={token}").status_code == 401
    assert world.http.post("/oauth/userinfo", data={"access_token": token}).status_code == 401
    assert userinfo(world, token).status_code == 200


def test_userinfo_ends_with_the_grant(world: World) -> None:
    token = world.tokens()["access_token"]
    world.post("/oauth/revoke", client_id="demo-public", token=token)
    assert userinfo(world, token).status_code == 401


def test_browsers_may_send_a_preflight_to_userinfo(world: World) -> None:
    answer = world.http.request("OPTIONS", "/oauth/userinfo", headers={"Origin": "https://app.example"})
    assert (answer.status_code, "Authorization" in answer.headers["access-control-allow-headers"]) == (204, True)


def test_core_12_2_refresh_returns_an_id_token_of_the_same_sign_in(world: World) -> None:
    first = world.tokens()
    world.clock.forward(30 * MINUTE)
    again = world.refresh(first["refresh_token"]).json()
    before, after = (claims_of(answer["id_token"])[1] for answer in (first, again))
    assert after["iat"] == before["iat"] + 30 * MINUTE // SECOND == world.clock() // SECOND
    for name in ("iss", "sub", "aud", "auth_time", "amr", "sid", "fhirUser"):
        assert after[name] == before[name], name
    assert "nonce" not in after


def test_core_3_1_3_6_at_hash_is_of_the_token_beside_it(world: World) -> None:
    first = world.tokens()
    for answer in (first, world.refresh(first["refresh_token"]).json()):
        half = hashlib.sha256(answer["access_token"].encode()).digest()[:16]
        assert claims_of(answer["id_token"])[1]["at_hash"] == base64.urlsafe_b64encode(half).rstrip(b"=").decode()


def test_refresh_without_openid_returns_no_id_token(world: World) -> None:
    refresh = world.tokens()["refresh_token"]
    assert "id_token" not in world.refresh(refresh, scope="launch/patient patient/*.rs").json()


def test_core_2_amr_names_the_password(world: World) -> None:
    claims = claims_of(world.tokens()["id_token"])[1]
    assert claims["amr"] == ["pwd"]
    assert "acr" not in claims


# claims and scopes


def test_core_5_4_scope_email_is_not_supported_and_no_error(world: World) -> None:
    """Accounts hold no e-mail address, so none is verified.  What is not supported is left out (OpenID Connect Core 3.1.2.1)."""
    change_client(world, scopes="openid profile email address phone offline_access")
    tokens = world.tokens(scope="openid email profile phone", aud=None)
    assert tokens["scope"].split() == ["openid", "profile"]
    claims = set(userinfo(world, tokens["access_token"]).json()) | set(claims_of(tokens["id_token"])[1])
    assert not {claim for claim in claims if claim.startswith(("email", "phone", "address"))}
    document = world.http.get("/.well-known/openid-configuration").json()
    assert not {"email", "phone", "address"} & set(document["scopes_supported"])
    assert not {"email", "email_verified"} & set(document["claims_supported"])


def test_discovery_3_claims_supported_are_those_that_are_sent(world: World) -> None:
    """All claims of a sign-in with every scope; ``acr`` comes with two factors only."""
    allow_profile(world)
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    asyncio.run(users.save(world.store, msgspec.structs.replace(user)))  # so that it is known when it was changed
    tokens = world.tokens(scope=PLAIN, aud=None)
    sent = set(userinfo(world, tokens["access_token"]).json()) | set(claims_of(tokens["id_token"])[1])
    grant = TokenGrant("demo-public", PLAIN, "family", amr=("pwd", "otp", "mfa"))
    sent |= set(id_tokens.sign_in_claims(grant))
    assert set(world.http.get("/.well-known/openid-configuration").json()["claims_supported"]) == sent
