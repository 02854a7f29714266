from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from fhir_server.smart.core.context import BACKEND_LIFE, SECOND
from tests.smart.environment import ASSERTION_TYPE, ORIGIN, TOKEN_URL, World, private_keys


def refused(world: World, assertion: str) -> bool:
    answer = world.backend(assertion)
    return answer.status_code in (400, 401) and answer.json()["error"] == "invalid_client" and "access_token" not in answer.text


def stated(world: World, **changes: Any) -> dict[str, Any]:
    now = world.clock() // SECOND
    return {"iss": "demo-backend", "sub": "demo-backend", "aud": TOKEN_URL, "exp": now + 300, "iat": now, "jti": "j"} | changes


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
def test_smart_87_92_93_a_signed_backend_gets_a_token(world: World, alg: str) -> None:
    answer = world.backend(world.assertion(alg=alg))
    body = answer.json()
    assert answer.status_code == 200
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 300, "system/*.rs")
    caller = world.principal(body["access_token"])
    assert (caller.client_kind, caller.person, caller.trusted_writer, caller.client_clearance) == ("backend", None, True, {"*"})
    world.clock.forward(BACKEND_LIFE)
    assert world.principal(body["access_token"]) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": 1_795_000_000},
        {"exp": 1_795_000_000 - 1},
        {"exp": 1_795_000_000 + 600},
        {"exp": "1795000300"},
        {"exp": True},
        {"exp": float("inf")},
        {"aud": None},
        {"aud": f"{ORIGIN}/"},
        {"aud": f"{ORIGIN}/oauth/par"},
        {"aud": f"{TOKEN_URL}/"},
        {"aud": [ORIGIN, "https://other.example"]},
        {"aud": [TOKEN_URL, "https://other.example"]},
        {"iss": "demo-asymmetric"},
        {"sub": "demo-asymmetric"},
        {"iss": None},
        {"sub": None},
        {"sub": ["demo-backend"]},
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
        {"jti": "x" * 600},
        {"iat": 1_795_000_000 + 600},
        {"nbf": 1_795_000_000 + 600},
        {"iat": "now"},
    ],
    ids=repr,
)
def test_smart_89_wrong_claim_returns_invalid_client(world: World, claims: dict[str, Any]) -> None:
    assert refused(world, world.assertion(**claims))
    assert world.backend().status_code == 200  # positive control


@pytest.mark.parametrize("aud", [TOKEN_URL, ORIGIN, [TOKEN_URL], [ORIGIN]], ids=repr)
def test_rfc_7523_3_an_assertion_names_this_server_by_its_token_endpoint_or_its_issuer(world: World, aud: str | list[str]) -> None:
    assert world.backend(world.assertion(aud=aud)).status_code == 200


def test_smart_89_reused_assertion_is_refused(world: World) -> None:
    assertion = world.assertion(jti="once")
    assert world.backend(assertion).status_code == 200
    assert refused(world, assertion)
    assert refused(world, world.assertion(alg="ES384", jti="once"))


def test_smart_89_forged_assertion_does_not_consume_the_jti(world: World) -> None:
    good = world.assertion(jti="mine")
    head, claims, _ = good.split(".")
    assert refused(world, f"{head}.{claims}.{'A' * 342}")
    assert world.backend(good).status_code == 200


def test_smart_89_jti_is_scoped_to_its_issuer(world: World) -> None:
    assert world.backend(world.assertion(jti="shared")).status_code == 200
    code = world.code(client_id="demo-asymmetric")
    signed = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": world.assertion("demo-asymmetric", jti="shared")}
    assert world.exchange(code, **signed).status_code == 200


def test_smart_89_assertion_signed_by_a_foreign_key_is_refused(world: World) -> None:
    own = next(key for key in private_keys(world.store, "demo-backend") if key.key_type == "RSA")
    forged = jwt.encode({"alg": "RS384", "kid": own.kid}, stated(world), RSAKey.generate_key(2048), algorithms=["RS384"])
    others = next(key for key in private_keys(world.store, "demo-asymmetric") if key.key_type == "RSA")
    borrowed = jwt.encode({"alg": "RS384", "kid": others.kid}, stated(world), others, algorithms=["RS384"])
    assert refused(world, forged)
    assert refused(world, borrowed)


def _unsigned(alg: str, kid: str | None, claims: dict[str, Any]) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": alg, "kid": kid}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def test_smart_89_unsigned_and_symmetric_assertions_are_refused(world: World) -> None:
    own = next(key for key in private_keys(world.store, "demo-backend") if key.key_type == "RSA")
    unsigned = _unsigned("none", own.kid, stated(world)) + "."
    symmetric = _unsigned("HS256", own.kid, stated(world))
    mac = hmac.digest(own.as_pem(private=False), symmetric.encode(), "sha256")
    symmetric += "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
    anything = RSAKey.import_key(own.as_pem(private=True))
    for alg in ("RS256", "RS512", "PS384"):
        assert refused(world, jwt.encode({"alg": alg, "kid": own.kid}, stated(world), anything, algorithms=[alg])), alg
    assert refused(world, unsigned)
    assert refused(world, symmetric)


@pytest.mark.parametrize("header", [{"kid": "other"}, {"kid": ""}, {"jku": "https://evil.example/jwks"}], ids=repr)
def test_smart_89_the_key_id_must_name_one_registered_key(world: World, header: dict[str, Any]) -> None:
    assert refused(world, world.assertion(header=header))


def test_smart_89_a_key_of_the_wrong_type_for_its_algorithm_is_refused(world: World) -> None:
    own = next(key for key in private_keys(world.store, "demo-backend") if key.key_type == "RSA")
    mixed = jwt.encode({"alg": "ES384", "kid": own.kid}, stated(world), ECKey.generate_key("P-384"), algorithms=["ES384"])
    assert refused(world, mixed)


@pytest.mark.parametrize("text", ["x", "a.b.c", "..", "é.é.é", "." * 50, "eyJhbGciOiJSUzM4NCJ9." + "W" * 40_000 + ".x"])
def test_smart_89_malformed_assertion_returns_invalid_client(world: World, text: str) -> None:
    assert refused(world, text)


def test_smart_89_deeply_nested_assertion_returns_invalid_client(world: World) -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"RS384","kid":"x"}').rstrip(b"=").decode()
    deep = base64.urlsafe_b64encode(b"[" * 30_000).rstrip(b"=").decode()
    assert refused(world, f"{head}.{deep}.x")


def test_smart_90_unknown_grant_type_returns_400(world: World) -> None:
    answer = world.backend(grant_type="not_a_grant_type")
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")


def test_smart_91_an_unknown_assertion_type_is_refused(world: World) -> None:
    assert world.backend(client_assertion_type="not_an_assertion_type").status_code in (400, 401)


def test_smart_92_v1_scope_is_returned_as_requested(world: World) -> None:
    assert world.backend(scope="system/*.read").json()["scope"] == "system/*.read"


def test_smart_94_backend_gets_no_refresh_token_or_personal_scopes(world: World) -> None:
    assert "refresh_token" not in world.backend(scope="system/*.rs offline_access").json()
    assert world.backend(world.assertion(jti="2"), scope="system/Patient.rs patient/*.rs user/*.rs").json()["scope"] == "system/Patient.rs"
    for number, scope in enumerate(["patient/*.rs", "user/*.rs", "openid", "", None]):
        assert world.backend(world.assertion(jti=f"n{number}"), scope=scope).json()["error"] == "invalid_scope"


def test_smart_94_user_facing_client_gets_unauthorized_client(world: World) -> None:
    answer = world.backend(world.assertion("demo-asymmetric"))
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")


def test_a_backend_cannot_start_an_authorization(world: World) -> None:
    assert world.authorize(client_id="demo-backend").status_code == 400
