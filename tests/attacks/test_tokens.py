"""Tokens and assertions: stolen, of the wrong kind, sent to the wrong place, signed with untrusted keys."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import RSAKey

from fhir_server.smart import demo
from fhir_server.smart.clients import clients
from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.context import REFRESH_GRACE, SECOND
from fhir_server.smart.outbound.id_tokens import ExpectedClaims, InvalidIdTokenError, verify
from tests.attacks.environment import House
from tests.smart.environment import ORIGIN, TOKEN_URL, Browser, World, claims_of

CONFIDENTIAL = ("demo-confidential", demo.SECRET)


# theft


def test_refresh_token_theft_second_use_revokes_the_family(world: World) -> None:
    """The attacker uses it first, or the app does (RFC 9700 4.14)."""
    for _ in range(2):
        tokens = world.tokens()
        first = world.refresh(tokens["refresh_token"]).json()
        assert world.principal(first["access_token"])  # the control
        world.clock.forward(REFRESH_GRACE)
        assert world.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
        assert world.principal(first["access_token"]) is None
        assert world.principal(tokens["access_token"]) is None
        assert world.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"


def test_refresh_token_theft_older_token_use_revokes_the_family(world: World) -> None:
    oldest = world.tokens()
    tokens = oldest
    for _ in range(4):
        tokens = world.refresh(tokens["refresh_token"]).json()
    assert world.principal(tokens["access_token"])
    world.refresh(oldest["refresh_token"])
    assert world.principal(tokens["access_token"]) is None


def test_refresh_token_theft_unused_by_another_client_has_no_effect(world: World) -> None:
    tokens = world.tokens()
    assert world.refresh(tokens["refresh_token"], CONFIDENTIAL).json()["error"] == "invalid_grant"
    assert world.refresh(tokens["refresh_token"]).status_code == 200


# tokens of the wrong kind


def _sent(world: World, client_assertion: str) -> str:
    """The error code for an assertion, "" if it is accepted."""
    return str(world.backend(client_assertion).json().get("error", ""))


def test_token_confusion_id_token_grants_no_access(house: House, world: World) -> None:
    token = world.tokens()["id_token"]
    assert world.principal(token) is None
    assert house.status(token) == 401
    assert house.status(house.token("adult", "adult")) == 200  # the control
    assert world.refresh(token).json()["error"] == "invalid_grant"
    assert world.post("/oauth/introspect", CONFIDENTIAL, token=token).json() == {"active": False}
    bearer = {"Authorization": f"Bearer {token}"}
    assert world.http.post("/oauth/introspect", data={"token": token}, headers=bearer).status_code == 401


def test_token_confusion_refresh_token_or_code_grants_no_access(house: House, world: World) -> None:
    tokens = world.tokens()
    for text in (tokens["refresh_token"], world.code()):
        assert world.principal(text) is None
        assert world.post("/oauth/introspect", CONFIDENTIAL, token=text).json() == {"active": False}
    assert world.refresh(tokens["access_token"]).json()["error"] == "invalid_grant"
    assert world.principal(tokens["access_token"])


def test_token_confusion_issued_tokens_fail_as_client_assertions(world: World) -> None:
    tokens = world.tokens()
    for text in (tokens["id_token"], tokens["access_token"], tokens["refresh_token"]):
        assert _sent(world, text) == "invalid_client"
    assert _sent(world, world.assertion()) == ""


def test_token_confusion_assertion_signed_by_server_key_is_refused(world: World) -> None:
    """The server's public keys are no client's keys."""
    for alg in ("RS256", "ES384"):
        kid, key = asyncio.run(signing_keys.current_key(world.smart, alg))
        claims = claims_of(world.assertion())[1]
        assert _sent(world, jwt.encode({"alg": alg, "kid": kid}, claims, key, algorithms=[alg])) == "invalid_client"
        for stated in (key_id for key_id in _kids(world)):
            assert _sent(world, jwt.encode({"alg": alg, "kid": stated}, claims, key, algorithms=[alg])) == "invalid_client"
    assert _sent(world, world.assertion()) == ""


def _kids(world: World) -> list[str]:
    kept = asyncio.run(demo.private_keys(world.store, "demo-backend"))
    assert kept is not None
    return [key["kid"] for key in kept["keys"]]


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_token_confusion_public_key_is_not_used_as_shared_secret(world: World, alg: str) -> None:
    """HS256 with a public key in several encodings, of the clients' keys and of the server's."""
    now = world.clock() // SECOND
    own = next(key for key in asyncio.run(signing_keys.jwks(world.smart))["keys"] if key["kty"] == "RSA")
    published = asyncio.run(demo.private_keys(world.store, "demo-backend"))
    assert published is not None
    spellings = [json.dumps(own).encode(), base64.urlsafe_b64decode(own["n"] + "=="), own["n"].encode()]
    spellings += [base64.urlsafe_b64decode(published["keys"][0]["n"] + "=="), published["keys"][0]["n"].encode()]
    claims = {"iss": "demo-backend", "sub": "demo-backend", "aud": TOKEN_URL, "exp": now + 300, "iat": now}
    for number, secret in enumerate(spellings):
        made = _mac(alg, _kids(world)[0], claims | {"jti": f"h{number}"}, secret)
        assert _sent(world, made) == "invalid_client"
    assert _sent(world, world.assertion()) == ""


def _mac(alg: str, kid: str, claims: dict[str, Any], secret: bytes) -> str:
    text = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({"alg": alg, "kid": kid}, claims)
    )
    digest = hmac.digest(secret, text.encode(), f"sha{alg[2:]}")
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def test_token_confusion_client_assertion_is_refused_as_id_token(world: World) -> None:
    """ID tokens with a valid signature but another issuer, audience or purpose."""
    published = asyncio.run(signing_keys.jwks(world.smart))
    tokens = world.tokens()
    token = tokens["id_token"]
    asked = ExpectedClaims(ORIGIN, "demo-public", "n-1", tokens["access_token"])
    assert asyncio.run(verify(token, published, asked, world.clock()))["iss"] == ORIGIN  # the control
    others = asyncio.run(demo.private_keys(world.store, "demo-backend"))
    assert others is not None
    for text, known in ((world.assertion(), published), (token, others), (world.assertion(), others)):
        with pytest.raises(InvalidIdTokenError):
            asyncio.run(verify(text, known, asked, world.clock()))


@pytest.mark.parametrize("size", [20_000, 60_000, 70_000, 1_000_000])
def test_assertions_over_the_size_limit_are_refused(world: World, size: int) -> None:
    assert world.backend(world.assertion(padding="x" * size)).status_code in (200, 400, 401)
    assert (world.backend(world.assertion(jti="big", padding="x" * size)).status_code == 200) == (size < 45_000)
    assert world.backend(world.assertion(jti="small")).status_code == 200


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"]}, {"jwk": {"kty": "oct", "k": "eA"}}, {"x5u": "https://evil.example"}, {"b64": False}], ids=repr
)
def test_assertions_forged_with_header_parameters_are_refused(world: World, header: dict[str, Any]) -> None:
    """Keys in the header are never used."""
    stated, claims, _ = world.assertion().split(".")
    changed = claims_of(f"{stated}.{claims}.x")[0] | header
    head = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
    assert _sent(world, f"{head}.{claims}.{'A' * 342}") == "invalid_client"
    assert world.backend(world.assertion(jti="control")).status_code == 200


# tokens in the wrong place


def test_token_in_query_string_returns_401(house: House) -> None:
    """URLs end up in logs and browser histories (RFC 9700 4.3.2)."""
    token, browser = house.token("adult", "adult"), Browser(house.app)
    for path in ("/fhir/Patient/adult", "/fhir/Patient", "/fhir/Patient/adult/_history"):
        for name in ("access_token", "token", "bearer_token", "Authorization"):
            assert browser.get(path, params={name: token}).status_code == 401, path
    form = {"access_token": token, "_id": "adult"}
    assert browser.post("/fhir/Patient/_search", data=form).status_code == 401
    assert browser.get("/fhir/Patient/adult", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("name", ["access_token", "token"])
def test_token_in_query_string_does_not_authenticate_introspection(world: World, name: str) -> None:
    token = world.tokens()["access_token"]
    assert world.http.post(f"/oauth/introspect?{name}={token}", data={"token": token}).status_code == 401
    assert world.http.post(f"/oauth/introspect?token={token}", data={"x": "y"}, auth=CONFIDENTIAL).status_code == 400
    assert world.http.post("/oauth/introspect", data={"token": token}, headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_token_in_query_string_or_form_does_not_open_userinfo(house: House) -> None:
    token, browser = house.token("adult", "adult"), Browser(house.app)
    assert browser.get("/oauth/userinfo", params={"access_token": token}).status_code == 401
    assert browser.post("/oauth/userinfo", data={"access_token": token}).status_code == 401
    assert browser.get("/oauth/userinfo", headers={"Authorization": f"Bearer {token}"}).status_code in (200, 403)


@pytest.mark.filterwarnings("ignore:Key size")
def test_assertions_by_rsa_keys_below_2048_bits_are_refused(world: World) -> None:
    """RFC 7518 3.3: a key that an attacker can factor lets the attacker act as the client."""
    for bits, accepted in ((1024, False), (2047, False), (2048, True)):
        key = RSAKey.import_key(rsa.generate_private_key(65537, bits), {"kid": f"k{bits}"})
        jwks = {"keys": [key.as_dict(private=False) | {"alg": "RS384"}]}
        found = asyncio.run(clients.find(world.store, "demo-backend"))
        assert found is not None
        asyncio.run(clients.save(world.store, clients.with_jwks(found, jwks)))
        claims = {"iss": "demo-backend", "sub": "demo-backend", "aud": TOKEN_URL, "exp": world.clock() // SECOND + 60, "jti": f"{bits}"}
        text = jwt.encode({"alg": "RS384", "kid": f"k{bits}"}, claims, key, algorithms=["RS384"])
        assert (world.backend(text).status_code == 200) is accepted, bits
        metadata = {"client_name": f"Keys of {bits}", "redirect_uris": ["https://app.example/cb"], "jwks": jwks}
        answer = world.http.post("/oauth/register", json=metadata | {"token_endpoint_auth_method": "private_key_jwt"})
        assert answer.status_code == (201 if accepted else 400), bits
