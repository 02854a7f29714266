"""Pushed authorization requests (RFC 9126), apps without PKCE, pairwise identifiers (OpenID Connect Core 8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from fhir_server.smart import demo
from fhir_server.smart.clients import clients
from fhir_server.smart.core.context import MINUTE
from fhir_server.smart.tokens import pushed_requests
from fhir_server.smart.tokens.launch import Launch, create_launch
from fhir_server.web.public_fetch import Network
from tests.smart.dpop_helpers import Prover
from tests.smart.environment import ASSERTION_TYPE, ORIGIN, World, claims_of, query
from tests.smart.openid_helpers import change_client, set_options, silent
from tests.smart.registration_helpers import find, made, path, post

SECRET = ("demo-confidential", "demo-secret")


def push(world: World, auth: tuple[str, str] | None = None, **changes: str | None) -> httpx.Response:
    return world.post("/oauth/par", auth, **world.asked(**changes))


def pushed(world: World, request_uri: str, client_id: str = "demo-public", **more: str) -> httpx.Response:
    return world.http.get("/oauth/authorize", params={"client_id": client_id, "request_uri": request_uri, **more})


def test_rfc_9126_2_a_pushed_request_leads_to_a_code(world: World) -> None:
    answer = push(world)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["expires_in"] == 60
    page = world.submit(world.sign_in(world.follow(pushed(world, answer.json()["request_uri"])), "adult"), patient="adult")
    back = query(world.submit(page, decision="allow").headers["location"])
    assert back["state"] == "s t/+%&é"
    assert world.exchange(back["code"]).status_code == 200


def test_rfc_9126_4_parameters_beside_the_name_do_not_count(world: World) -> None:
    request_uri = push(world).json()["request_uri"]
    page = world.follow(pushed(world, request_uri, scope="openid", redirect_uri="https://evil.example/", state="other", prompt="none"))
    assert 'name="password"' in page.text


def test_rfc_9126_2_clients_authenticate_as_at_the_token_endpoint(world: World) -> None:
    assert push(world, client_id="demo-confidential").status_code == 401
    assert push(world, ("demo-confidential", "wrong"), client_id=None).status_code == 401
    assert push(world, SECRET, client_id=None).status_code == 201


@pytest.mark.parametrize("aud", [f"{ORIGIN}/oauth/token", f"{ORIGIN}/oauth/par", ORIGIN])
def test_rfc_9126_2_an_assertion_may_name_this_server_in_three_ways(world: World, aud: str) -> None:
    signed = world.assertion("demo-asymmetric", aud=aud)
    fields = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}
    assert world.post("/oauth/par", **world.asked(client_id=None), **fields).status_code == 201
    signed = world.assertion("demo-asymmetric", aud=aud, jti="other")
    refresh = {"grant_type": "refresh_token", "refresh_token": "x", "client_assertion": signed}
    error = world.post("/oauth/token", **refresh, client_assertion_type=ASSERTION_TYPE).json()["error"]
    assert error == ("invalid_client" if aud.endswith("par") else "invalid_grant")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uri": "https://evil.example/"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"aud": "https://elsewhere.example"}, "invalid_request"),
        ({"response_mode": "jwt"}, "invalid_request"),
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"request_uri": f"{pushed_requests._PREFIX}x"}, "invalid_request"),
        ({"request": "x.y.z"}, "request_not_supported"),
    ],
)
def test_rfc_9126_2_3_errors_are_json_without_a_redirect(world: World, changes: dict[str, Any], error: str) -> None:
    answer = push(world, **changes)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert "location" not in answer.headers


def test_rfc_9126_2_2_a_pushed_request_expires(world: World) -> None:
    request_uri = push(world).json()["request_uri"]
    world.clock.forward(MINUTE)
    assert pushed(world, request_uri).status_code == 400


def test_rfc_9126_6_registered_clients_must_push(world: World) -> None:
    set_options(world, require_pushed_authorization_requests=True)
    assert query(world.authorize().headers["location"])["error"] == "invalid_request"
    assert pushed(world, push(world).json()["request_uri"]).headers["location"].startswith("/oauth/continue")


def test_setting_makes_all_clients_push(world: World) -> None:
    object.__setattr__(world.smart, "require_pushed_requests", True)
    assert query(world.authorize().headers["location"])["error"] == "invalid_request"
    assert world.http.get("/.well-known/openid-configuration").json()["require_pushed_authorization_requests"] is True
    request_uri = push(world).json()["request_uri"]
    page = world.submit(world.sign_in(world.follow(pushed(world, request_uri)), "adult"), patient="adult")
    assert "code" in query(world.submit(page, decision="allow").headers["location"])


def test_rfc_9449_10_1_the_key_of_a_pushed_request_binds_its_code(world: World) -> None:
    prover = Prover(world)
    answer = world.http.post("/oauth/par", data=world.asked(), headers={"DPoP": prover.proof(f"{ORIGIN}/oauth/par")})
    page = world.submit(world.sign_in(world.follow(pushed(world, answer.json()["request_uri"])), "adult"), patient="adult")
    code = query(world.submit(page, decision="allow").headers["location"])["code"]
    assert world.exchange(code).json()["error"] == "invalid_grant"
    assert prover.exchange(code).status_code == 200
    other = {"DPoP": prover.proof(f"{ORIGIN}/oauth/par")}
    assert world.http.post("/oauth/par", data=world.asked(dpop_jkt=Prover(world).jkt), headers=other).status_code == 400


def test_pushed_requests_are_limited_by_address(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushed_requests, "PER_ADDRESS", 2)
    world.open()
    assert [push(world).status_code for _ in range(3)] == [201, 201, 429]
    assert push(world).headers["retry-after"]
    world.clock.forward(MINUTE)
    assert push(world).status_code == 201


# without PKCE


def launched(world: World, client_id: str = "demo-confidential") -> dict[str, str | None]:
    handle = asyncio.run(create_launch(world.store, Launch(client_id, "clinician", "teen"), world.clock()))
    none: dict[str, str | None] = {"code_challenge": None, "code_challenge_method": None}
    return none | {"launch": handle, "scope": "launch patient/*.rs", "client_id": client_id}


def test_exempt_client_needs_no_pkce_in_an_ehr_launch(world: World) -> None:
    recorded: list[Any] = []

    async def record(event: Any, at: int) -> None:
        recorded.append(event)

    set_options(world, "demo-confidential", without_pkce=True)
    object.__setattr__(world.smart, "record_security_event", record)
    code = world.code("clinician", "", **launched(world))
    assert world.exchange(code, SECRET, code_verifier=None).json()["patient"] == "teen"
    assert [event.detail.get("pkce") for event in recorded if event.kind == "allow-app"] == ["none"]


def test_exempt_client_may_not_add_a_verifier_afterwards(world: World) -> None:
    set_options(world, "demo-confidential", without_pkce=True)
    assert world.exchange(world.code("clinician", "", **launched(world)), SECRET).status_code == 400


def test_without_the_switch_every_launch_needs_pkce(world: World) -> None:
    assert query(world.authorize(**launched(world)).headers["location"])["error"] == "invalid_request"


@pytest.mark.parametrize(
    "changes", [{"launch": None, "scope": "patient/*.rs launch/patient"}, {"code_challenge_method": "plain"}, {"code_challenge": "x"}]
)
def test_exempt_client_needs_pkce_otherwise(world: World, changes: dict[str, str | None]) -> None:
    set_options(world, "demo-confidential", without_pkce=True)
    assert query(world.authorize(**launched(world) | changes).headers["location"])["error"] == "invalid_request"


def test_public_client_cannot_be_exempt_from_pkce(world: World) -> None:
    with pytest.raises(ValueError, match="without PKCE"):
        set_options(world, "demo-public", without_pkce=True)


def test_app_cannot_register_itself_without_pkce(world: World) -> None:
    client = find(world, made(world, without_pkce=True)["client_id"])
    assert client is not None
    assert client.options.without_pkce is False


# pairwise identifiers


def sub(world: World, **changes: str | None) -> str:
    return str(claims_of(world.tokens(**changes)["id_token"])[1]["sub"])


def test_core_8_1_pairwise_identifiers_differ_by_sector_and_stay(world: World) -> None:
    public = sub(world)
    set_options(world, subject_type="pairwise")
    mine = sub(world)
    assert mine == sub(world) != public
    change_client(world, redirect_uris=(demo.REDIRECT,), homepage="https://new.example")
    assert sub(world) == mine
    set_options(world, subject_type="pairwise", sector_identifier_uri="https://sector.example/uris.json")
    assert sub(world) not in (mine, public)


def test_core_8_1_clients_of_one_sector_get_the_same_identifier(world: World) -> None:
    for client_id in ("demo-public", "demo-confidential"):
        set_options(world, client_id, subject_type="pairwise")
    code = world.code(client_id="demo-confidential")
    assert claims_of(world.exchange(code, SECRET).json()["id_token"])[1]["sub"] == sub(world)


def test_pairwise_identifier_is_the_same_at_every_door(world: World) -> None:
    set_options(world, subject_type="pairwise")
    tokens = world.tokens()
    own = claims_of(tokens["id_token"])[1]["sub"]
    asked = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert world.http.get("/oauth/userinfo", headers=asked).json()["sub"] == own
    assert world.post("/oauth/introspect", SECRET, token=tokens["access_token"]).json()["sub"] == own
    assert claims_of(world.refresh(tokens["refresh_token"]).json()["id_token"])[1]["sub"] == own
    assert "code" in silent(world, id_token_hint=tokens["id_token"])


def test_registration_names_its_options_and_replaces_them(world: World) -> None:
    sent = {"post_logout_redirect_uris": ["https://app.example/out"], "backchannel_logout_uri": "https://app.example/logout"}
    told = made(world, **sent, subject_type="pairwise", dpop_bound_access_tokens=True)
    assert {name: told[name] for name in sent} == sent
    assert (told["subject_type"], told["dpop_bound_access_tokens"]) == ("pairwise", True)
    manager = {"Authorization": f"Bearer {told['registration_access_token']}"}
    body = {name: told[name] for name in ("client_id", "client_name", "redirect_uris", "token_endpoint_auth_method")}
    assert "backchannel_logout_uri" not in world.http.request("PUT", path(told), json=body, headers=manager).json()
    client = find(world, told["client_id"])
    assert client is not None
    assert client.options == clients.ClientOptions()


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ({"post_logout_redirect_uris": ["http://app.example/"]}, "invalid_redirect_uri"),
        ({"post_logout_redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"post_logout_redirect_uris": ["https://app.example/#x"]}, "invalid_redirect_uri"),
        ({"post_logout_redirect_uris": "https://app.example/"}, "invalid_client_metadata"),
        ({"backchannel_logout_uri": "http://app.example/"}, "invalid_client_metadata"),
        ({"backchannel_logout_uri": "https://user@app.example/"}, "invalid_client_metadata"),
        ({"subject_type": "secret"}, "invalid_client_metadata"),
        ({"subject_type": "pairwise", "redirect_uris": ["https://a.example/", "https://b.example/"]}, "invalid_client_metadata"),
        ({"sector_identifier_uri": "https://down.example/"}, "invalid_client_metadata"),
    ],
)
def test_registration_refuses_unsafe_options(world: World, sent: dict[str, Any], error: str) -> None:
    async def nowhere(host: str, port: int) -> Sequence[str]:
        return ()

    object.__setattr__(world.smart, "network", Network(nowhere))
    answer = post(world, **sent)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


@pytest.mark.parametrize(("listed", "status"), [(["https://app.example/callback"], 201), (["https://evil.example/"], 400), ({}, 400)])
def test_registration_5_sector_document_must_list_the_redirect_uris(world: World, listed: Any, status: int) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ("93.184.216.34",)

    answer = httpx.MockTransport(lambda request: httpx.Response(200, stream=httpx.ByteStream(json.dumps(listed).encode())))
    object.__setattr__(world.smart, "network", Network(resolve, answer))
    assert post(world, subject_type="pairwise", sector_identifier_uri="https://sector.example/uris.json").status_code == status
