"""Tokens that are bound to a key (DPoP, RFC 9449), at the token endpoint, userinfo and introspection."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from fhir_server.smart import demo
from fhir_server.smart.core.context import MINUTE, SECOND
from fhir_server.smart.tokens import dpop
from tests.smart.dpop_helpers import Prover
from tests.smart.environment import ASSERTION_TYPE, ORIGIN, TOKEN_URL, VERIFIER, World, query
from tests.smart.openid_helpers import set_options


@pytest.fixture
def prover(world: World) -> Prover:
    return Prover(world)


def introspect(world: World, token: str) -> dict[str, Any]:
    return dict(world.post("/oauth/introspect", ("demo-confidential", "demo-secret"), token=token).json())


def test_rfc_9449_5_a_proof_binds_the_tokens(world: World, prover: Prover) -> None:
    tokens = prover.tokens()
    assert tokens["token_type"] == "DPoP"
    assert prover.userinfo(tokens["access_token"]).status_code == 200
    told = introspect(world, tokens["access_token"])
    assert (told["active"], told["token_type"], told["cnf"]) == (True, "DPoP", {"jkt": prover.jkt})


def test_rfc_9449_5_tokens_without_a_proof_stay_bearer_tokens(world: World) -> None:
    tokens = world.tokens()
    assert tokens["token_type"] == "Bearer"
    assert "cnf" not in introspect(world, tokens["access_token"])


def test_rfc_9449_5_1_metadata_names_the_algorithms(world: World) -> None:
    document = world.http.get("/.well-known/oauth-authorization-server").json()
    assert document["dpop_signing_alg_values_supported"] == ["ES256", "ES384", "RS256", "PS256", "EdDSA"]


def test_rfc_9449_8_a_proof_without_the_nonce_is_told_it(world: World, prover: Prover) -> None:
    for given in (None, "made-up", ""):
        answer = prover.exchange(world.code(), prover.proof(nonce=given))
        assert (answer.status_code, answer.json()["error"]) == (400, "use_dpop_nonce")
        assert "DPoP-Nonce" in answer.headers["access-control-expose-headers"]
    assert prover.exchange(world.code(), prover.proof(nonce=answer.headers["dpop-nonce"])).status_code == 200


def test_rfc_9449_8_the_last_nonce_is_taken_and_older_ones_are_not(world: World, prover: Prover) -> None:
    old = dpop.nonce(world.smart)
    world.clock.forward(dpop.NONCE_LIFE)
    assert prover.exchange(world.code(), prover.proof(nonce=old)).status_code == 200
    world.clock.forward(dpop.NONCE_LIFE)
    assert prover.exchange(world.code(), prover.proof(nonce=old)).json()["error"] == "use_dpop_nonce"


@pytest.mark.parametrize(
    "claims",
    [
        *({"htm": "GET"}, {"htu": f"{ORIGIN}/oauth/revoke"}, {"htu": "https://elsewhere.example/oauth/token"}, {"htu": None}, {"htu": 7}),
        *({"htu": TOKEN_URL + "?a=1"}, {"htu": "http://[/oauth/token"}, {"htu": TOKEN_URL.replace("http:", "https:")}),
        *({"jti": None}, {"jti": ""}, {"jti": 7}, {"jti": "j" * 513}, {"iat": None}, {"iat": "now"}, {"iat": True}, {"iat": 1}),
    ],
)
def test_rfc_9449_4_3_proof_of_another_request_is_refused(world: World, prover: Prover, claims: dict[str, Any]) -> None:
    answer = prover.exchange(world.code(), prover.proof(**claims))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


def test_rfc_9449_4_3_a_clock_may_be_a_little_ahead(world: World, prover: Prover) -> None:
    now = world.clock() // SECOND
    assert prover.exchange(world.code(), prover.proof(iat=now + 31)).json()["error"] == "invalid_dpop_proof"
    assert prover.exchange(world.code(), prover.proof(iat=now + 30)).status_code == 200


@pytest.mark.parametrize("url", [TOKEN_URL.replace("http:", "HTTP:"), TOKEN_URL.replace("token", "%74oken")])
def test_rfc_9449_4_3_spellings_of_the_url_are_equal(world: World, prover: Prover, url: str) -> None:
    assert prover.exchange(world.code(), prover.proof(url)).status_code == 200


@pytest.mark.parametrize("fault", ["typ", "private", "symmetric", "none", "short", "swapped", "other key", "text", "no jwk"])
def test_rfc_9449_4_3_proof_with_a_wrong_key_or_header_is_refused(world: World, prover: Prover, fault: str) -> None:
    public, other = prover.key.as_dict(private=False), ECKey.generate_key("P-256").as_dict(private=False)
    claims = {"jti": "j", "htm": "POST", "htu": TOKEN_URL, "iat": world.clock() // SECOND, "nonce": dpop.nonce(world.smart)}
    if fault == "symmetric":
        secret = OctKey.generate_key(256)
        header = {"typ": "dpop+jwt", "alg": "HS256", "jwk": {"kty": "oct", "k": secret.as_dict()["k"]}}
        proof = jwt.encode(header, claims, secret, algorithms=["HS256"])
    elif fault == "none":
        parts = prover.proof().split(".")
        parts[0] = base64.urlsafe_b64encode(b'{"typ":"dpop+jwt","alg":"none","jwk":{"kty":"EC"}}').rstrip(b"=").decode()
        proof = f"{parts[0]}.{parts[1]}."
    elif fault == "short":
        weak = RSAKey.generate_key(1024)
        proof = jwt.encode({"typ": "dpop+jwt", "alg": "RS256", "jwk": weak.as_dict(private=False)}, claims, weak, algorithms=["RS256"])
    elif fault == "text":
        proof = "not-a-proof, and-not-a-second"
    else:
        headers: dict[str, dict[str, Any]] = {
            "typ": {"typ": "JWT"},
            "private": {"jwk": prover.key.as_dict(private=True)},
            "swapped": {"jwk": {**public, "kty": "RSA"}},
            "other key": {"jwk": other},
            "no jwk": {"jwk": None},
        }
        head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": public} | headers[fault]
        proof = jwt.encode({name: value for name, value in head.items() if value is not None}, claims, prover.key, algorithms=["ES256"])
    answer = prover.exchange(world.code(), proof)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


def test_rfc_9449_10_a_code_bound_to_a_key_needs_its_proof(world: World, prover: Prover) -> None:
    code = world.code(dpop_jkt=prover.jkt)
    assert Prover(world).exchange(code).json()["error"] == "invalid_grant"
    assert world.exchange(code).json()["error"] == "invalid_grant"
    assert prover.exchange(code).status_code == 200
    assert query(world.authorize(dpop_jkt="short").headers["location"])["error"] == "invalid_request"


def test_rfc_9449_5_refresh_of_a_public_client_needs_the_same_key(world: World, prover: Prover) -> None:
    refresh = prover.tokens()["refresh_token"]
    assert world.refresh(refresh).json()["error"] == "invalid_grant"
    assert Prover(world).refresh(refresh).json()["error"] == "invalid_grant"
    again = prover.refresh(refresh).json()
    assert again["token_type"] == "DPoP"
    assert world.refresh(again["refresh_token"]).json()["error"] == "invalid_grant"
    assert prover.refresh(again["refresh_token"]).status_code == 200


def test_rfc_9449_5_refresh_of_a_confidential_client_may_change_the_key(world: World, prover: Prover) -> None:
    code, secret = world.code(client_id="demo-confidential"), {"client_id": "demo-confidential", "client_secret": "demo-secret"}
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": demo.REDIRECT, "code_verifier": VERIFIER}
    refresh = prover.post(fields | secret).json()["refresh_token"]
    renewing = {"grant_type": "refresh_token", "refresh_token": refresh} | secret
    assert world.http.post("/oauth/token", data=renewing).json()["error"] == "invalid_grant"
    other = Prover(world)
    token = other.post(renewing).json()["access_token"]
    assert (other.userinfo(token).status_code, prover.userinfo(token).status_code) == (200, 401)


def test_registered_clients_get_tokens_only_with_a_proof(world: World, prover: Prover) -> None:
    set_options(world, dpop_bound_access_tokens=True)
    code = world.code()
    assert world.exchange(code).json()["error"] == "invalid_dpop_proof"
    assert prover.exchange(code).status_code == 200


def test_setting_binds_the_tokens_of_all_clients(world: World, prover: Prover) -> None:
    object.__setattr__(world.smart, "require_dpop", True)
    assert world.exchange(world.code()).json()["error"] == "invalid_dpop_proof"
    assert world.backend().json()["error"] == "invalid_dpop_proof"
    assert prover.exchange(world.code()).status_code == 200


def test_backend_tokens_may_be_bound(world: World, prover: Prover) -> None:
    fields = {"grant_type": "client_credentials", "scope": "system/*.rs", "client_assertion_type": ASSERTION_TYPE}
    answer = prover.post(fields | {"client_assertion": world.assertion()}).json()
    assert answer["token_type"] == "DPoP"


def test_repeated_refresh_within_the_grace_needs_the_same_key(world: World, prover: Prover) -> None:
    refresh = prover.tokens()["refresh_token"]
    first = prover.refresh(refresh).json()
    assert prover.refresh(refresh).json()["access_token"] == first["access_token"]
    assert Prover(world).refresh(refresh).json()["error"] == "invalid_grant"


def test_proof_in_the_store_is_forgotten_with_its_nonce(world: World, prover: Prover) -> None:
    prover.tokens()
    world.clock.forward(11 * MINUTE)
    assert asyncio.run(world.store.key_values.list_all("dpop-proof", world.clock())) == ()
