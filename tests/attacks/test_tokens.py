"""Tokens and assertions: stolen, confused with one another, sent where they do not belong, stretched beyond what was granted."""

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

from fhir_server.smart import demo, granted, keys
from fhir_server.smart.accounts import users
from fhir_server.smart.apps import clients
from fhir_server.smart.core import HOUR, SECOND
from fhir_server.smart.providers.id_tokens import Expected, Unproven, verified
from fhir_server.smart.scopes import parse
from tests.attacks.world import House
from tests.smart.world import ORIGIN, TOKEN_URL, Browser, Page, World, claims_of, query

CONFIDENTIAL = ("demo-confidential", demo.SECRET)


# theft


def test_refresh_token_theft_whoever_comes_second_ends_it_for_both(world: World) -> None:
    """The thief first, then the app; and the app first, then the thief (RFC 9700 4.14)."""
    for _ in range(2):
        tokens = world.tokens()
        first = world.refresh(tokens["refresh_token"]).json()
        assert world.principal(first["access_token"])  # the control
        assert world.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
        assert world.principal(first["access_token"]) is None
        assert world.principal(tokens["access_token"]) is None
        assert world.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"


def test_refresh_token_theft_an_old_token_of_the_chain_ends_it_too(world: World) -> None:
    oldest = world.tokens()
    tokens = oldest
    for _ in range(4):
        tokens = world.refresh(tokens["refresh_token"]).json()
    assert world.principal(tokens["access_token"])
    world.refresh(oldest["refresh_token"])
    assert world.principal(tokens["access_token"]) is None


def test_refresh_token_theft_another_client_can_neither_use_nor_end_it(world: World) -> None:
    tokens = world.tokens()
    assert world.refresh(tokens["refresh_token"], CONFIDENTIAL).json()["error"] == "invalid_grant"
    again = world.refresh(tokens["refresh_token"])
    assert again.status_code == 200
    assert world.refresh(tokens["refresh_token"], CONFIDENTIAL).json()["error"] == "invalid_grant"
    assert world.principal(again.json()["access_token"])


# one kind of token for another


def _sent(world: World, client_assertion: str) -> str:
    """The error that an assertion comes back with, "" for none."""
    return str(world.backend(client_assertion).json().get("error", ""))


def test_token_confusion_an_id_token_opens_nothing(house: House, world: World) -> None:
    token = world.tokens()["id_token"]
    assert world.principal(token) is None
    assert house.status(token) == 401
    assert house.status(house.token("adult", "adult")) == 200  # the control
    assert world.refresh(token).json()["error"] == "invalid_grant"
    assert world.post("/oauth/introspect", CONFIDENTIAL, token=token).json() == {"active": False}
    bearer = {"Authorization": f"Bearer {token}"}
    assert world.http.post("/oauth/introspect", data={"token": token}, headers=bearer).status_code == 401


def test_token_confusion_a_refresh_token_or_code_is_no_access_token(house: House, world: World) -> None:
    tokens = world.tokens()
    for text in (tokens["refresh_token"], world.code()):
        assert world.principal(text) is None
        assert world.post("/oauth/introspect", CONFIDENTIAL, token=text).json() == {"active": False}
    assert world.refresh(tokens["access_token"]).json()["error"] == "invalid_grant"
    assert world.principal(tokens["access_token"])


def test_token_confusion_our_own_tokens_are_no_client_assertions(world: World) -> None:
    tokens = world.tokens()
    for text in (tokens["id_token"], tokens["access_token"], tokens["refresh_token"]):
        assert _sent(world, text) == "invalid_client"
    assert _sent(world, world.assertion()) == ""


def test_token_confusion_an_assertion_signed_by_our_own_key_is_refused(world: World) -> None:
    """Our key set is published, and is nobody's but ours."""
    for alg in ("RS256", "ES384"):
        kid, key = asyncio.run(keys.signer(world.smart, alg))
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
def test_token_confusion_our_public_key_is_no_shared_secret(world: World, alg: str) -> None:
    """HS256 with a public key, in every spelling of that key, against the clients' keys and against ours."""
    now = world.clock() // SECOND
    own = next(key for key in asyncio.run(keys.jwks(world.smart))["keys"] if key["kty"] == "RSA")
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


def test_token_confusion_a_clients_assertion_is_no_id_token_of_ours(world: World) -> None:
    """What our own reader of id_tokens makes of tokens that are signed soundly, by somebody else or for something else."""
    published = asyncio.run(keys.jwks(world.smart))
    tokens = world.tokens()
    token = tokens["id_token"]
    asked = Expected(ORIGIN, "demo-public", "n-1", tokens["access_token"])
    assert asyncio.run(verified(token, published, asked, world.clock()))["iss"] == ORIGIN  # the control
    others = asyncio.run(demo.private_keys(world.store, "demo-backend"))
    assert others is not None
    for text, known in ((world.assertion(), published), (token, others), (world.assertion(), others)):
        with pytest.raises(Unproven):
            asyncio.run(verified(text, known, asked, world.clock()))


@pytest.mark.parametrize("size", [20_000, 60_000, 70_000, 1_000_000])
def test_assertions_oversized_are_a_refusal_and_not_a_fault(world: World, size: int) -> None:
    assert world.backend(world.assertion(padding="x" * size)).status_code in (200, 400, 401)
    assert (world.backend(world.assertion(jti="big", padding="x" * size)).status_code == 200) == (size < 45_000)
    assert world.backend(world.assertion(jti="small")).status_code == 200


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"]}, {"jwk": {"kty": "oct", "k": "eA"}}, {"x5u": "https://evil.example"}, {"b64": False}], ids=repr
)
def test_assertions_whose_header_brings_its_own_rules_are_refused_or_read_by_ours(world: World, header: dict[str, Any]) -> None:
    """A key in the header is never used: with a forged signature nothing of the header helps."""
    stated, claims, _ = world.assertion().split(".")
    changed = claims_of(f"{stated}.{claims}.x")[0] | header
    head = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
    assert _sent(world, f"{head}.{claims}.{'A' * 342}") == "invalid_client"
    assert world.backend(world.assertion(jti="control")).status_code == 200


# tokens where they do not belong


def test_a_token_in_the_query_string_is_not_read(house: House) -> None:
    """It would end in logs and histories (RFC 9700 4.3.2)."""
    token, browser = house.token("adult", "adult"), Browser(house.app)
    for path in ("/fhir/Patient/adult", "/fhir/Patient", "/fhir/Patient/adult/_history"):
        for name in ("access_token", "token", "bearer_token", "Authorization"):
            assert browser.get(path, params={name: token}).status_code == 401, path
    form = {"access_token": token, "_id": "adult"}
    assert browser.post("/fhir/Patient/_search", data=form).status_code == 401
    assert browser.get("/fhir/Patient/adult", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("name", ["access_token", "token"])
def test_a_token_in_the_query_string_is_no_credential_for_introspection_either(world: World, name: str) -> None:
    token = world.tokens()["access_token"]
    assert world.http.post(f"/oauth/introspect?{name}={token}", data={"token": token}).status_code == 401
    assert world.http.post(f"/oauth/introspect?token={token}", data={"x": "y"}, auth=CONFIDENTIAL).status_code == 400
    assert world.http.post("/oauth/introspect", data={"token": token}, headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_token_in_the_query_string_there_is_no_userinfo_endpoint_to_send_it_to(house: House) -> None:
    """Who somebody is stands in the id_token; an endpoint that does not exist leaks nothing."""
    told = Browser(house.app).get("/.well-known/openid-configuration").json()
    assert "userinfo_endpoint" not in told
    assert not [path for path in (*house.paths("GET"), *house.paths("POST")) if "userinfo" in path]


# more than was granted


def test_scope_escalation_at_a_refresh_is_refused(world: World) -> None:
    tokens = world.tokens(scope="launch/patient offline_access patient/Observation.rs")
    for scope in (
        "patient/*.rs",
        "patient/Observation.cruds",
        "user/*.rs",
        "system/*.rs",
        "openid",
        "patient/Observation.rs patient/Patient.r",
    ):
        answer = world.refresh(tokens["refresh_token"], scope=scope)
        assert answer.status_code == 400 or set(answer.json()["scope"].split()) <= set(tokens["scope"].split()), scope
        assert answer.status_code == 400, scope
    answer = world.refresh(tokens["refresh_token"], scope="patient/Observation.rs")
    assert answer.json()["scope"] == "patient/Observation.rs"


@pytest.mark.parametrize(
    "scope", ["user/*.cruds", "patient/*.cruds", "system/*.rs", "patient/Observation.rs?category=x|y", "online_access"]
)
@pytest.mark.parametrize("field", ["scope", "part"])
def test_scope_escalation_at_consent_by_a_scope_that_was_not_offered_is_not_granted(world: World, scope: str, field: str) -> None:
    page = world.consent_page(scope="launch/patient patient/Observation.rs patient/Patient.r")
    sent = Page(page.text).sent
    form: dict[str, list[str]] = {}
    for name, value in [*sent, (field, scope), ("decision", "allow")]:
        form.setdefault(name, []).append(value)
    code = query(world.http.post("/oauth/consent", data=form).headers["location"])["code"]
    assert world.exchange(code).json()["scope"] == "launch/patient patient/Observation.rs patient/Patient.r"


@pytest.mark.parametrize("patient", ["teen", "senior", "nobody", "", "../teen", "Patient/teen"])
def test_scope_escalation_at_consent_by_a_patient_who_was_not_offered_gives_nothing(world: World, patient: str) -> None:
    picker = world.sign_in(world.follow(world.authorize()), "adult")
    assert world.submit(picker, patient=patient).status_code == 400
    handle = dict(Page(picker.text).sent)
    forced = world.http.post("/oauth/consent", data=handle | {"decision": "allow", "patient": patient})
    assert "location" not in forced.headers
    code = query(world.submit(world.submit(picker, patient="adult"), decision="allow", patient=patient).headers["location"])["code"]
    assert world.exchange(code).json()["patient"] == "adult"


MALFORMED = (
    *(
        "patient/*.sr",
        "patient/Observation.rr",
        "patient/Observation.RS",
        "PATIENT/Observation.rs",
        "patient/observation.rs",
        "patient/.rs",
    ),
    *(
        "patient/**.rs",
        "patient/Obs*.rs",
        "patient/Observation.",
        "patient/Observation.*.*",
        "patient/Observation.rs.cud",
        "/*.rs",
        "*/*.rs",
    ),
    *(
        "patient/Observation.rs?",
        "patient/Observation.rs?=",
        "patient/Observation.rs?category",
        "patient/Observation.rs?category=",
        "patient//*.rs",
    ),
    *("patient/Observation.rs?a=b&", "patient/Observation.read?a=b", "patient/../user/*.rs", "patient/Observation.rs\u00a0user/*.rs"),
    *(
        "patient/Observation.rs,user/*.rs",
        "patient/Observation.rs;user/*.rs",
        "pаtient/*.rs",
        "patient/Observation.ｒｓ",
        "patient/Observation.rs\x00",
    ),
)


@pytest.mark.parametrize("scope", MALFORMED, ids=repr)
def test_scope_escalation_by_a_malformed_scope_grants_nothing_of_it(world: World, scope: str) -> None:
    assert parse(scope) is None
    assert query(world.authorize(scope=scope).headers["location"])["error"] == "invalid_scope"
    assert world.tokens(scope=f"patient/Patient.r {scope}")["scope"].split() in (
        ["patient/Patient.r"],
        ["patient/Patient.r", "patient/Observation.rs"],
    )


def test_scope_escalation_by_a_flood_of_scopes_is_refused(world: World) -> None:
    flood = " ".join(f"patient/Observation.rs?category=x|{number}" for number in range(250))
    assert query(world.authorize(scope=flood).headers["location"])["error"] == "invalid_scope"


@pytest.mark.filterwarnings("ignore:Key size")
def test_assertions_by_a_key_too_short_to_keep_a_secret_are_refused(world: World) -> None:
    """RFC 7518 3.3: whoever can take such a key apart signs in as the client."""
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


# ended while a request is under way


def _ended_at(world: World, monkeypatch: pytest.MonkeyPatch, moment: str) -> list[str]:
    """From now on a grant is ended, as Connected apps does it, at this step of an exchange; the steps that came by."""
    secrets, steps = world.store.secrets, []

    def watched(name: str, kept: Any) -> Any:
        async def step(kind: str, key: str, *rest: Any) -> Any:
            steps.append(f"{name} {kind}")
            if steps[-1] == moment:
                for one in await granted.standing(world.store, world.clock()):
                    await secrets.forget(one.family)
            return await kept(kind, key, *rest)

        return step

    for name in ("keep", "replace", "take"):
        monkeypatch.setattr(secrets, name, watched(name, getattr(secrets, name)))
    return steps


@pytest.mark.parametrize("moment", ["keep spent-refresh", "replace access", "replace refresh", "take refresh", "never"])
def test_revocation_race_an_app_cannot_refresh_its_way_past_the_end_of_its_grant(
    world: World, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    old = world.tokens()
    world.clock.forward(2 * HOUR)  # so that nothing but the refresh token stands for the grant
    steps = _ended_at(world, monkeypatch, moment)
    answer = world.refresh(old["refresh_token"])
    assert {"keep spent-refresh", "replace access", "replace refresh", "take refresh"} <= set(steps)
    monkeypatch.undo()
    standing = asyncio.run(granted.standing(world.store, world.clock()))
    if moment == "never":  # the control
        assert world.principal(answer.json()["access_token"]) and len(standing) == 1
        assert world.refresh(answer.json()["refresh_token"]).status_code == 200
    else:
        assert (answer.status_code, answer.json()["error"], standing) == (400, "invalid_grant", ())


@pytest.mark.parametrize("moment", ["keep spent-code", "replace access", "replace refresh", "take code", "never"])
def test_revocation_race_a_code_gives_nothing_once_its_grant_has_ended(world: World, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    code = world.code()
    steps = _ended_at(world, monkeypatch, moment)
    answer = world.exchange(code)
    assert {"keep spent-code", "replace access", "replace refresh", "take code"} <= set(steps)
    monkeypatch.undo()
    standing = asyncio.run(granted.standing(world.store, world.clock()))
    if moment == "never":  # the control
        assert world.principal(answer.json()["access_token"]) and len(standing) == 1
    else:
        assert (answer.status_code, answer.json()["error"], standing) == (400, "invalid_grant", ())


def test_revocation_race_an_app_cannot_keep_its_registration_by_changing_it_while_it_is_taken_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = {"client_name": "A diary", "redirect_uris": ["https://app.example/cb"], "token_endpoint_auth_method": "none"}
    done = world.http.post("/oauth/register", json=metadata).json()
    url, bearer = f"/oauth/register/{done['client_id']}", {"Authorization": f"Bearer {done['registration_access_token']}"}
    changed = metadata | {"client_id": done["client_id"], "client_name": "Another diary"}
    assert world.http.request("PUT", url, json=changed, headers=bearer).status_code == 200  # the control
    replace = world.store.secrets.replace

    async def late(kind: str, *rest: Any) -> None:
        if kind == "client":
            assert await clients.remove(world.store, done["client_id"], world.clock())
        await replace(kind, *rest)

    monkeypatch.setattr(world.store.secrets, "replace", late)
    assert world.http.request("PUT", url, json=changed, headers=bearer).status_code == 401
    monkeypatch.undo()
    assert asyncio.run(clients.find(world.store, done["client_id"])) is None
    assert world.http.request("GET", url, headers=bearer).status_code == 401


@pytest.mark.parametrize("change", ["password", "relation"])
def test_revocation_race_an_account_cannot_be_kept_by_changing_it_while_it_is_closed(world: World, change: str) -> None:
    replace, closing = world.store.secrets.replace, []

    async def late(kind: str, *rest: Any) -> None:
        if kind == "user" and not closing:
            closing.append(asyncio.create_task(users.remove(world.store, "parent-a", world.clock())))
            await asyncio.sleep(0.05)
        await replace(kind, *rest)

    async def raced() -> None:
        user = await users.find(world.store, "parent-a")
        assert user is not None
        world.store.secrets.replace = late  # type: ignore[method-assign]
        if change == "password":
            await users.keep_password(world.store, user, "hashed", world.clock())
        else:
            await users.link(world.store, "parent-a", "another")
        assert await closing[0]

    asyncio.run(raced())
    assert asyncio.run(users.find(world.store, "parent-a")) is None
