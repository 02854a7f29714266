from __future__ import annotations

import asyncio

import pytest

from fhir_server.smart import demo
from fhir_server.smart.accounts import sessions, users
from fhir_server.smart.core.context import MINUTE, SECOND
from fhir_server.smart.tokens.launch import Launch, create_launch
from tests.smart.environment import BASE, CHALLENGE, ORIGIN, Page, World, query


def refusal(world: World, **changes: str | None) -> dict[str, str]:
    """Return the parameters of the error response to the client."""
    answer = world.authorize(**changes)
    assert answer.status_code == 302
    assert answer.headers["location"].startswith(demo.REDIRECT)
    return query(answer.headers["location"])


def launched(world: World, client: str = "demo-public", username: str = "clinician", **more: object) -> str:
    launch = Launch(client, username, "teen", **more)  # type: ignore[arg-type]
    return asyncio.run(create_launch(world.store, launch, world.clock()))


def test_smart_23_27_28_get_request_returns_code_and_unchanged_state(world: World) -> None:
    answer = world.submit(world.consent_page(), decision="allow")
    back = query(answer.headers["location"])
    assert answer.headers["location"].startswith(f"{demo.REDIRECT}?")
    assert back["code"]
    assert back["state"] == "s t/+%&é"
    assert "error" not in back


def test_authorization_response_names_the_issuer(world: World) -> None:
    assert query(world.submit(world.consent_page(), decision="allow").headers["location"])["iss"] == ORIGIN
    assert refusal(world, aud="https://elsewhere.example")["iss"] == ORIGIN


def test_smart_24_post_request_returns_a_code(world: World) -> None:
    answer = world.follow(world.http.post("/oauth/authorize", data=world.asked()))
    answer = world.submit(world.submit(world.sign_in(answer, "adult"), patient="adult"), decision="allow")
    assert query(answer.headers["location"])["code"]


def test_smart_25_a_trailing_slash_of_aud_is_tolerated(world: World) -> None:
    assert world.authorize(aud=f"{BASE}/").headers["location"].startswith("/oauth/continue")


@pytest.mark.parametrize("aud", [None, "", "https://elsewhere.example/fhir", f"{BASE}/Patient", BASE.upper()])
def test_smart_26_a_wrong_aud_gets_no_code(world: World, aud: str | None) -> None:
    assert refusal(world, aud=aud)["error"] == "invalid_request"


@pytest.mark.parametrize("uri", [f"{demo.REDIRECT}/", f"{demo.REDIRECT}?a=1", "https://evil.example/", "javascript:alert(1)", '"<x', None])
def test_smart_30_an_unregistered_redirect_uri_is_never_followed(world: World, uri: str | None) -> None:
    answer = world.authorize(redirect_uri=uri)
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "<x" not in answer.text


@pytest.mark.parametrize("client", [None, "nobody", 'no"body', "é"])
def test_smart_30_unknown_client_returns_400_without_redirect(world: World, client: str | None) -> None:
    answer = world.authorize(client_id=client)
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize("response_type", [None, "token", "code id_token"])
def test_smart_30_other_response_types_are_refused(world: World, response_type: str | None) -> None:
    assert refusal(world, response_type=response_type)["error"] == "unsupported_response_type"


def test_smart_30_invalid_scopes_are_dropped_and_refused_if_none_remain(world: World) -> None:
    assert refusal(world, scope="patient/Observation.sr nonsense")["error"] == "invalid_scope"
    assert world.tokens(scope="patient/Observation.rs nonsense system/*.rs")["scope"] == "patient/Observation.rs"


def test_smart_30_57_launch_gives_its_context_once_to_its_client(world: World) -> None:
    scope = "launch patient/Patient.rs"
    handle = launched(world, encounter="visit-1", parameters={"intent": "review"})
    token = world.tokens("clinician", scope=scope, launch=handle)
    assert (token["patient"], token["encounter"], token["intent"]) == ("teen", "visit-1", "review")
    assert token["need_patient_banner"] is True
    for bad in (handle, "unknown", launched(world, client="demo-confidential")):
        assert refusal(world, scope=scope, launch=bad)["error"] == "invalid_request"
    assert refusal(world, scope=scope)["error"] == "invalid_request"


def test_smart_30_launch_of_another_person_is_denied(world: World) -> None:
    answer = world.submit(world.consent_page("adult", scope="launch patient/*.rs", launch=launched(world)), decision="allow")
    assert query(answer.headers["location"])["error"] == "access_denied"


def test_smart_30_expired_launch_is_refused(world: World) -> None:
    handle = launched(world)
    world.clock.forward(6 * MINUTE)
    assert refusal(world, scope="launch patient/*.rs", launch=handle)["error"] == "invalid_request"


def test_smart_31_code_is_valid_for_one_minute(world: World) -> None:
    fresh, stale = world.code(), world.code()
    world.clock.forward(59 * MINUTE // 60)
    assert world.exchange(fresh).status_code == 200
    world.clock.forward(2 * MINUTE // 60)
    assert world.exchange(stale).json()["error"] == "invalid_grant"


def test_smart_32_denial_returns_access_denied_and_state(world: World) -> None:
    back = query(world.submit(world.consent_page(), decision="deny").headers["location"])
    assert (back["error"], back["state"], "code" in back) == ("access_denied", "s t/+%&é", False)


def test_decision_other_than_allow_returns_access_denied(world: World) -> None:
    assert query(world.submit(world.consent_page(), decision="Allow").headers["location"])["error"] == "access_denied"


def test_second_consent_submission_returns_400(world: World) -> None:
    page = world.consent_page()
    assert world.submit(page, decision="allow").status_code == 303
    assert world.submit(page, decision="allow").status_code == 400


@pytest.mark.parametrize("name", ["scope", "aud", "code_challenge", "nonce"])
def test_a_repeated_parameter_is_refused(world: World, name: str) -> None:
    asked = world.asked()
    assert world.http.get("/oauth/authorize", params=[*asked.items(), (name, asked[name])]).status_code == 400


def test_a_repeated_parameter_of_a_token_request_is_refused(world: World) -> None:
    fields = {"grant_type": "refresh_token", "refresh_token": world.tokens()["refresh_token"], "client_id": "demo-public"}
    assert world.http.post("/oauth/token", data=fields | {"scope": ["patient/*.rs", "patient/*.rs"]}).status_code == 400
    assert world.http.post("/oauth/token", data=fields).status_code == 200


def test_prompt_none_returns_login_required_without_a_session(world: World) -> None:
    assert refusal(world, prompt="none")["error"] == "login_required"


def test_prompt_login_asks_for_the_password_again(world: World) -> None:
    world.consent_page()
    world.clock.forward(MINUTE)
    again = world.follow(world.authorize(prompt="login"))
    assert 'name="password"' in again.text
    assert 'name="password"' not in world.follow(world.authorize()).text
    assert Page(world.sign_in(again, "adult").text).radios == ["adult"]


def test_prompt_login_is_met_by_the_first_factor_only_after_the_request(world: World) -> None:
    """The first factor was given before the request, the second after it."""
    smart = world.smart
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    cookie = asyncio.run(sessions.start(smart, user, authenticated=world.clock()))
    world.clock.forward(SECOND)
    world.authorize(prompt="login")
    handle = query(world.authorize(prompt="login").headers["location"])["request"]
    world.http.cookies.set("session", cookie, domain="127.0.0.1")
    assert world.http.get("/oauth/continue", params={"request": handle}).headers["location"].startswith("/sign-in")
    fresh = asyncio.run(sessions.start(smart, user, authenticated=world.clock()))  # the control
    world.http.cookies.set("session", fresh, domain="127.0.0.1")
    assert world.http.get("/oauth/continue", params={"request": handle}).headers["location"].startswith("/oauth/record")


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge_method": "plain"},
        {"code_challenge_method": None},
        {"code_challenge": None},
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge": "short"},
        {"code_challenge": ""},
    ],
)
@pytest.mark.parametrize("client", ["demo-public", "demo-confidential"])
def test_smart_38_request_without_s256_challenge_is_refused(world: World, changes: dict[str, str | None], client: str) -> None:
    assert refusal(world, client_id=client, **changes)["error"] == "invalid_request"
    assert CHALLENGE
