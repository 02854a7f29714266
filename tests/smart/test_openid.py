from __future__ import annotations

import asyncio
import base64

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.context import HOUR, SECOND, SmartContext
from fhir_server.store import open_store
from tests.smart.environment import BASE, ORIGIN, World, claims_of


def test_smart_72_76_77_the_id_token_verifies_against_the_published_keys(world: World) -> None:
    token = world.tokens()["id_token"]
    header, _ = claims_of(token)
    published = KeySet.import_key_set(world.http.get("/oauth/jwks").json())
    claims = jwt.decode(token, published, algorithms=["RS256"]).claims
    assert header["alg"] == "RS256"
    assert [key.kid for key in published if key.key_type == "RSA"] == [header["kid"]]
    assert claims["iss"] == ORIGIN
    assert "demo-public" in claims["aud"]
    assert claims["iat"] <= world.clock() // SECOND < claims["exp"]
    assert claims["nonce"] == "n-1"
    assert claims["auth_time"] == world.clock() // SECOND
    assert 1 <= len(claims["sub"]) <= 255


def test_smart_75_jwks_contains_only_public_rsa_and_ec_keys(world: World) -> None:
    published = world.http.get("/oauth/jwks").json()["keys"]
    assert sorted((key["kty"], key["alg"]) for key in published) == [("EC", "ES384"), ("RSA", "RS256")]
    assert not any(set(key) & {"d", "p", "q", "dp", "dq", "qi"} for key in published)


def test_signing_keys_have_128_bits_of_strength_or_more(world: World) -> None:
    # NIST SP 800-57: 3072 bits for RSA, 256 bits for curves.
    published = {key["kty"]: key for key in world.http.get("/oauth/jwks").json()["keys"]}
    assert len(base64.urlsafe_b64decode(published["RSA"]["n"] + "===")) * 8 >= 3072
    assert published["EC"]["crv"] == "P-384"


def test_subject_is_stable_per_person_and_hides_the_username(world: World) -> None:
    first, again, other = (
        claims_of(world.tokens(user, patient)["id_token"])[1]["sub"]
        for user, patient in (("adult", "adult"), ("adult", "adult"), ("parent-a", "teen"))
    )
    assert first == again != other
    assert "adult" not in first


@pytest.mark.parametrize(
    ("username", "patient", "expected"),
    [
        ("adult", "adult", "Patient/adult"),
        ("parent-a", "teen", "RelatedPerson/parent-a-of-teen"),
        ("parent-a", "child", "RelatedPerson/parent-a-of-child"),
        ("clinician", "", "Practitioner/dr-rivera"),
    ],
)
def test_smart_78_fhir_user_is_the_persons_resource_for_the_record(world: World, username: str, patient: str, expected: str) -> None:
    scope = "openid fhirUser patient/*.rs" if patient else "openid fhirUser user/*.rs"
    assert claims_of(world.tokens(username, patient, scope=scope)["id_token"])[1]["fhirUser"] == f"{BASE}/{expected}"


def test_id_token_and_fhir_user_require_their_scopes(world: World) -> None:
    assert "id_token" not in world.tokens(scope="patient/*.rs")
    assert "fhirUser" not in claims_of(world.tokens(scope="openid patient/*.rs")["id_token"])[1]


def test_key_rotation_keeps_old_tokens_valid_and_uses_the_new_key(world: World) -> None:
    before = world.tokens()["id_token"]
    asyncio.run(signing_keys.rotate(world.smart, "RS256"))
    after = world.tokens()["id_token"]
    published = KeySet.import_key_set(world.http.get("/oauth/jwks").json())
    assert claims_of(before)[0]["kid"] != claims_of(after)[0]["kid"]
    for token in (before, after):
        assert jwt.decode(token, published, algorithms=["RS256"]).claims["iss"] == ORIGIN


def test_secret_key_setting_encrypts_stored_signing_keys(world: World) -> None:
    marker = base64.b64encode(b"-----BEGIN")[:12]

    def kept(key: str) -> list[bytes]:
        store = open_store("memory:")
        smart = SmartContext(store, ORIGIN, BASE, world.clock, world.smart.records, key=key)
        asyncio.run(signing_keys.prepare(smart))
        assert asyncio.run(signing_keys.current_key(smart, "RS256"))
        return [text for _, text in asyncio.run(store.key_values.list_all("signing-key", 0))]

    assert all(marker in text for text in kept(""))
    assert not any(marker in text for text in kept("k" * 32))


def test_preparing_keys_twice_creates_no_second_key(world: World) -> None:
    before = world.http.get("/oauth/jwks").json()
    asyncio.run(signing_keys.prepare(world.smart))
    assert world.http.get("/oauth/jwks").json() == before


def test_retired_key_is_published_until_its_tokens_expire(world: World) -> None:
    old = world.tokens()["id_token"]
    asyncio.run(signing_keys.rotate(world.smart, "RS256"))
    world.clock.forward(HOUR)  # the lifetime of the id_token
    assert claims_of(old)[0]["kid"] in {key["kid"] for key in world.http.get("/oauth/jwks").json()["keys"]}
    world.clock.forward(signing_keys.RETIREMENT_PERIOD - HOUR)
    published = world.http.get("/oauth/jwks").json()["keys"]
    assert claims_of(old)[0]["kid"] not in {key["kid"] for key in published}
    assert sorted(key["alg"] for key in published) == ["ES384", "RS256"]


def test_key_rotation_works_after_retired_keys_are_removed(world: World) -> None:
    seen = set()
    for _ in range(3):
        asyncio.run(signing_keys.rotate(world.smart, "RS256"))
        seen.add(claims_of(world.tokens()["id_token"])[0]["kid"])
        world.clock.forward(signing_keys.RETIREMENT_PERIOD)
    assert len(seen) == 3


def test_key_rotation_in_production_requires_the_secret_key(world: World) -> None:
    object.__setattr__(world.smart, "mode", "production")
    before = world.http.get("/oauth/jwks").json()
    with pytest.raises(ValueError, match="FHIR_SERVER_SECRET_KEY"):
        asyncio.run(signing_keys.rotate(world.smart, "RS256"))
    assert world.http.get("/oauth/jwks").json() == before
