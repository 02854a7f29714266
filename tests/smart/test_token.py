from __future__ import annotations

import asyncio
import base64
from urllib.parse import quote_plus

import httpx
import pytest

from fhir_server.smart import demo
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.context import HOUR, digest
from tests.smart.environment import CHALLENGE, ORIGIN, SCOPE, VERIFIER, Page, World

CONFIDENTIAL = ("demo-confidential", demo.SECRET)


def test_smart_33_39_40_a_public_client_exchanges_its_code(world: World) -> None:
    answer = world.exchange(world.code())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "verifier", [None, "", "w" * 50, CHALLENGE, VERIFIER[:-1], "é" * 50], ids=["none", "blank", "wrong", "plain", "short", "odd"]
)
def test_smart_34_35_36_37_wrong_verifier_returns_400_and_keeps_the_code(world: World, verifier: str | None) -> None:
    code = world.code()
    assert world.exchange(code, code_verifier=verifier).status_code == 400
    assert world.exchange(code).status_code == 200  # the refused request did not consume the code


def test_smart_34_36_confidential_clients_need_the_verifier_too(world: World) -> None:
    code = world.code(client_id="demo-confidential")
    assert world.exchange(code, CONFIDENTIAL, code_verifier=None).status_code == 400
    assert world.exchange(code, CONFIDENTIAL, code_verifier="w" * 50).status_code == 400
    assert world.exchange(code, CONFIDENTIAL).status_code == 200


def test_smart_41_a_confidential_client_authenticates_by_basic_or_in_the_body(world: World) -> None:
    assert world.exchange(world.code(client_id="demo-confidential"), CONFIDENTIAL).status_code == 200
    body = {"client_id": "demo-confidential", "client_secret": demo.SECRET}
    assert world.exchange(world.code(client_id="demo-confidential"), **body).status_code == 200


@pytest.mark.parametrize("secret", ["plain-secret", "50%25 + /=:?&", "a+b c%2Fd", "pässwörd:%"])
def test_smart_41_basic_credentials_are_read_plain_and_form_encoded(world: World, secret: str) -> None:
    """Clients send them plain, and RFC 6749 2.3.1 requires form encoding.  No secret is accepted in place of another."""
    client = Client("demo.web_app~1", "Other web app", "app", "client_secret", "patient/*.rs", (demo.REDIRECT,), secret_hash=digest(secret))
    asyncio.run(clients.save(world.store, client))
    form = {"token": "garbage"}
    for credentials, status in (
        (f"{client.client_id}:{secret}", 200),
        (f"{quote_plus(client.client_id)}:{quote_plus(secret)}", 200),
        (f"demo%2Eweb%5Fapp~1:{quote_plus(secret)}", 200),
        (f"{client.client_id}:{secret}x", 401),
        (f"{client.client_id}:{quote_plus(quote_plus(secret)) + '%'}", 401),
        (f"{client.client_id}:", 401),
        (client.client_id, 401),
    ):
        header = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}
        assert world.http.post("/oauth/introspect", data=form, headers=header).status_code == status, credentials


def test_smart_42_asymmetric_client_authenticates_by_assertion_alone(world: World) -> None:
    code = world.code(client_id="demo-asymmetric")
    signed = {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": world.assertion("demo-asymmetric", "ES384"),
    }
    assert world.exchange(code, **signed).status_code == 200


def test_smart_43_invalid_code_returns_400(world: World) -> None:
    answer = world.exchange("bogus")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert world.exchange("").status_code == 400


@pytest.mark.parametrize("auth", [("nobody", demo.SECRET), ("demo-confidential", "wrong"), ("demo-public", "x"), ("é", "é")])
def test_smart_44_wrong_client_credentials_return_401(world: World, auth: tuple[str, str]) -> None:
    answer = world.exchange(world.code(client_id="demo-confidential"), auth)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic")


def test_smart_44_an_unknown_public_client_is_refused(world: World) -> None:
    assert world.exchange(world.code(), client_id="nobody").status_code in (400, 401)
    assert world.exchange(world.code(), client_id=None).status_code in (400, 401)


def test_smart_44_confidential_client_without_secret_returns_401(world: World) -> None:
    code = world.code(client_id="demo-confidential")
    assert world.exchange(code, client_id="demo-confidential").status_code == 401


def test_client_with_conflicting_credentials_is_refused(world: World) -> None:
    code = world.code(client_id="demo-confidential")
    assert world.exchange(code, CONFIDENTIAL, client_secret=demo.SECRET).status_code == 400
    assert world.exchange(code, CONFIDENTIAL, client_id="demo-public").status_code == 401
    assert world.exchange(code, CONFIDENTIAL, client_id="demo-confidential").status_code == 200


@pytest.mark.parametrize("header", ["Basic !!!", "Basic " + base64.b64encode(b"\xff:\xff").decode(), "Basic", "Nonsense x"])
def test_malformed_authorization_header_returns_400_or_401(world: World, header: str) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    assert world.http.post("/oauth/token", data=form, headers={"Authorization": header}).status_code in (400, 401)


def test_smart_45_a_code_is_bound_to_its_client_and_redirect_uri(world: World) -> None:
    code = world.code()
    assert world.exchange(code, CONFIDENTIAL).json()["error"] == "invalid_grant"
    assert world.exchange(code, redirect_uri="http://127.0.0.1:8765/other").json()["error"] == "invalid_grant"
    assert world.exchange(code, redirect_uri=None).json()["error"] == "invalid_grant"
    assert world.exchange(code).status_code == 200


def test_smart_45_replayed_code_revokes_its_tokens(world: World) -> None:
    code = world.code()
    tokens = world.exchange(code).json()
    assert world.principal(tokens["access_token"])
    assert world.exchange(code).status_code == 400
    assert world.principal(tokens["access_token"]) is None
    assert world.refresh(tokens["refresh_token"]).status_code == 400


def test_smart_45_replay_by_another_client_revokes_nothing(world: World) -> None:
    code = world.code()
    tokens = world.exchange(code).json()
    assert world.exchange(code, CONFIDENTIAL).status_code == 400
    assert world.principal(tokens["access_token"])


def test_smart_45_concurrent_exchanges_succeed_once(world: World) -> None:
    form = {"grant_type": "authorization_code", "code": world.code(), "redirect_uri": demo.REDIRECT}
    form |= {"code_verifier": VERIFIER, "client_id": "demo-public"}

    async def race() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN) as client:
            return [r.status_code for r in await asyncio.gather(*(client.post("/oauth/token", data=form) for _ in range(12)))]

    assert sorted(asyncio.run(race())) == [200] + [400] * 11


def test_smart_46_47_48_token_response_members_have_the_right_types(world: World) -> None:
    tokens = world.tokens()
    assert all(isinstance(tokens[name], str) and tokens[name] for name in ("access_token", "scope", "refresh_token"))
    assert tokens["token_type"].lower() == "bearer"
    assert type(tokens["expires_in"]) is int


def test_smart_49_granted_scope_equals_the_requested_string(world: World) -> None:
    granular = (
        "patient/Condition.rs?category=http://terminology.hl7.org/CodeSystem/condition-category|encounter-diagnosis "
        "patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
    )
    assert world.tokens()["scope"] == SCOPE
    assert world.tokens(scope="patient/*.read user/*.*")["scope"] == "patient/*.read user/*.*"
    assert world.tokens(scope=granular)["scope"] == granular


def test_smart_50_token_responses_forbid_caching(world: World) -> None:
    for answer in (world.exchange(world.code()), world.exchange("bogus"), world.http.post("/oauth/token", content=b"x")):
        assert "no-store" in answer.headers["cache-control"]
        assert "no-cache" in answer.headers["pragma"]


def test_smart_53_54_token_response_contains_launch_parameters(world: World) -> None:
    tokens = world.tokens("parent-a", "teen")
    assert (tokens["patient"], tokens["need_patient_banner"]) == ("teen", True)
    assert "patient" not in world.tokens("clinician", scope="user/*.rs")


def test_smart_59_patient_scopes_imply_a_patient_context(world: World) -> None:
    assert world.tokens(scope="patient/Observation.rs")["patient"] == "adult"


def test_smart_60_access_token_expires_within_an_hour(world: World) -> None:
    tokens = world.tokens()
    assert tokens["expires_in"] <= 3600
    assert world.principal(tokens["access_token"])
    world.clock.forward(HOUR)
    assert world.principal(tokens["access_token"]) is None


def test_refresh_token_requires_offline_access(world: World) -> None:
    assert "refresh_token" not in world.tokens(scope="launch/patient patient/*.rs")


def test_credentials_in_query_string_are_ignored(world: World) -> None:
    assert world.http.post("/oauth/token?grant_type=authorization_code&client_id=demo-public", data={}).status_code == 400


def test_no_token_reaches_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    tokens = world.tokens()
    world.refresh(tokens["refresh_token"])
    assert tokens["access_token"] not in caplog.text
    assert tokens["refresh_token"] not in caplog.text


def test_secrets_are_not_stored_in_plain_text(world: World) -> None:
    page = world.consent_page()
    handle = dict(Page(page.text).sent)["request"]
    tokens = world.exchange(world.submit(page, decision="allow").headers["location"].partition("code=")[2].partition("&")[0]).json()
    renewed = world.refresh(tokens["refresh_token"]).json()

    async def everything() -> str:
        kinds = ("access", "refresh", "code", "session", "request", "spent-code", "spent-refresh", "successor", "user")
        return repr([await world.store.key_values.list_all(kind, 0) for kind in kinds])

    kept = asyncio.run(everything())
    assert tokens["scope"] in kept  # positive control: the records exist
    issued = [answer[name] for answer in (tokens, renewed) for name in ("access_token", "refresh_token")]
    for secret in (*issued, handle, *world.http.cookies.values(), demo.PASSWORD):
        assert secret not in kept
