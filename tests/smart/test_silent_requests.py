"""``prompt=none`` and remembered consent (OpenID Connect Core 3.1.2.1, 3.1.2.6)."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from fhir_server.smart import demo
from fhir_server.smart.clients import clients
from fhir_server.smart.core.context import DAY, GRANT_LIFE, HOUR, MINUTE, SECOND, digest
from fhir_server.smart.core.persons import ChartPage, Person, RecordChoice
from fhir_server.smart.core.token_grants import ACCESS, TokenGrant, find
from tests.smart.environment import SCOPE, Page, World, claims_of
from tests.smart.openid_helpers import PostedForm, change_client, silent

ONLINE = "openid launch/patient online_access patient/*.rs"
SHORT = "openid launch/patient patient/*.rs"


def renewed(world: World, **changes: str | None) -> dict[str, Any]:
    """The token response to a silent request in this browser."""
    response = world.exchange(silent(world, **changes)["code"])
    assert response.status_code == 200, response.text
    return dict(response.json())


def sign_in_again(world: World, username: str = "adult") -> None:
    """A new session, without answering any app."""
    world.http.cookies.clear()
    world.sign_in(world.http.get("/sign-in"), username)


def grant(world: World, token: str) -> TokenGrant:
    found = asyncio.run(find(world.store, ACCESS, digest(token), world.clock()))
    assert found is not None
    return found


def test_core_3_1_2_6_nobody_signed_in_is_login_required(world: World) -> None:
    assert silent(world)["error"] == "login_required"
    assert silent(world)["state"] == "s t/+%&é"


def test_core_3_1_2_6_first_access_is_consent_required(world: World) -> None:
    sign_in_again(world)
    assert silent(world)["error"] == "consent_required"


@pytest.mark.parametrize("scope", [SCOPE, ONLINE, SHORT, "openid fhirUser"])
def test_allowed_access_is_given_again_silently(world: World, scope: str) -> None:
    first = world.tokens(scope=scope)
    again = renewed(world, scope=scope)
    assert (again["scope"], again.get("patient")) == (first["scope"], first.get("patient"))
    assert claims_of(again["id_token"])[1]["sub"] == claims_of(first["id_token"])[1]["sub"]
    assert grant(world, again["access_token"]).family == grant(world, first["access_token"]).family


def test_fewer_scopes_are_given_silently_and_more_are_not(world: World) -> None:
    world.tokens(scope="openid launch/patient patient/Observation.rs patient/Condition.rs")
    assert renewed(world, scope="openid patient/Condition.rs")["scope"] == "openid patient/Condition.rs"
    assert renewed(world, scope="patient/Condition.r")["scope"] == "patient/Condition.r"
    assert silent(world, scope="openid patient/Observation.rs patient/Immunization.rs")["error"] == "consent_required"
    assert silent(world, scope="openid patient/Condition.cruds")["error"] == "consent_required"


def allow_only(world: World, page: httpx.Response, *scopes: str) -> None:
    """Allow on the consent page with only these boxes checked."""
    form = dict(Page(page.text).sent)
    sent = {name: form[name] for name in ("token", "request", "shown")} | {"listed": "yes", "decision": "allow", "scope": list(scopes)}
    assert world.http.post("/oauth/consent", data=sent).status_code == 303


def test_deselected_scopes_stay_deselected(world: World) -> None:
    asked = "openid launch/patient offline_access patient/Observation.rs patient/Condition.rs"
    allow_only(world, world.consent_page(scope=asked), "offline_access", "patient/Condition.rs")
    assert set(renewed(world, scope=asked)["scope"].split()) == {"openid", "launch/patient", "offline_access", "patient/Condition.rs"}


def test_consent_without_lasting_access_is_not_remembered(world: World) -> None:
    world.tokens()
    page = world.submit(world.follow(world.authorize()), patient="adult")
    allow_only(world, page, "patient/*.rs")
    assert silent(world)["error"] == "consent_required"


@pytest.mark.parametrize(("scope", "expected"), [(SCOPE, ""), (ONLINE, "consent_required"), (SHORT, "consent_required")])
def test_only_offline_access_is_remembered_after_the_session(world: World, scope: str, expected: str) -> None:
    world.tokens(scope=scope)
    sign_in_again(world)
    assert silent(world, scope=scope).get("error", "") == expected


def test_silent_renewal_keeps_the_limit_of_the_grant(world: World) -> None:
    first = grant(world, world.tokens()["access_token"])
    world.clock.forward(9 * MINUTE)
    assert grant(world, renewed(world)["access_token"]).since == first.since
    for _ in range(GRANT_LIFE // (90 * DAY)):
        world.clock.forward(90 * DAY)
        sign_in_again(world)
        last = silent(world)
    assert "code" in last
    world.clock.forward(20 * DAY)
    sign_in_again(world)
    assert silent(world)["error"] == "consent_required"


def test_silent_requests_do_not_keep_a_session_open(world: World) -> None:
    world.tokens()
    for _ in range(3):
        world.clock.forward(3 * MINUTE)
        assert "code" in silent(world)
    world.clock.forward(2 * MINUTE)
    assert silent(world)["error"] == "login_required"


def test_revocation_ends_the_remembered_consent(world: World) -> None:
    tokens = world.tokens()
    world.post("/oauth/revoke", client_id="demo-public", token=tokens["access_token"])
    assert silent(world)["error"] == "consent_required"


def test_revocation_ends_what_silent_renewal_gave(world: World) -> None:
    first, again = world.tokens(), renewed(world)
    world.post("/oauth/revoke", client_id="demo-public", token=first["access_token"])
    assert world.principal(again["access_token"]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Another name"},
        {"homepage": "https://elsewhere.example"},
        {"redirect_uris": (demo.REDIRECT, "https://elsewhere.example/callback")},
        {"metadata": {"logo_uri": "https://elsewhere.example/logo"}},
    ],
)
def test_changed_app_is_consent_required(world: World, change: dict[str, Any]) -> None:
    world.tokens()
    assert "code" in silent(world)
    change_client(world, **change)
    assert silent(world)["error"] == "consent_required"


def test_registered_scopes_still_limit_a_remembered_consent(world: World) -> None:
    world.tokens()
    change_client(world, scopes="openid launch/patient patient/Condition.rs")
    assert set(renewed(world)["scope"].split()) == {"openid", "launch/patient", "patient/Condition.rs"}


def test_two_allowed_records_are_interaction_required(world: World) -> None:
    world.tokens("parent-a", "teen")
    assert renewed(world)["patient"] == "teen"
    world.submit(world.submit(world.follow(world.authorize()), patient="child"), decision="allow")
    assert silent(world)["error"] == "interaction_required"


def test_another_person_in_the_browser_gets_no_code(world: World) -> None:
    world.tokens()
    sign_in_again(world, "parent-a")
    assert silent(world)["error"] == "consent_required"


def test_another_client_gets_no_code(world: World) -> None:
    world.tokens()
    assert silent(world, client_id="demo-confidential")["error"] == "consent_required"


def test_record_that_may_not_be_opened_any_more_gets_no_code(world: World) -> None:
    world.tokens("parent-a", "teen")

    async def none(*_: object) -> list[Any]:
        return []

    object.__setattr__(world.smart, "records", none)
    assert silent(world)["error"] == "consent_required"


class TwoCharts:
    """A clinician's patients: two children."""

    async def find(self, person: Person, reader: str, typed: str, page: str, now: int) -> ChartPage:
        return ChartPage(tuple(RecordChoice(id, id, "Patient") for id in ("child", "teen")))

    async def one(self, person: Person, patient: str, now: int) -> RecordChoice | None:
        return RecordChoice(patient, patient, "Patient")


def test_staff_in_a_record_is_interaction_required(world: World) -> None:
    object.__setattr__(world.smart, "charts", TwoCharts())
    world.tokens("clinician", "teen")
    assert silent(world)["error"] == "interaction_required"


def test_staff_without_a_record_is_renewed(world: World) -> None:
    scope = "openid user/*.rs offline_access"
    world.tokens("clinician", "", scope=scope)
    assert "user/*.rs" in renewed(world, scope=scope)["scope"].split()


def test_core_3_1_2_1_max_age_applies_to_silent_requests(world: World) -> None:
    world.tokens()
    world.clock.forward(MINUTE)
    assert "code" in silent(world, max_age="61")
    assert silent(world, max_age="59")["error"] == "login_required"


def test_core_3_1_2_1_prompt_consent_asks_in_spite_of_a_remembered_consent(world: World) -> None:
    world.tokens()
    page = world.submit(world.follow(world.authorize(prompt="consent")), patient="adult")
    assert 'name="decision" value="allow"' in page.text


def test_core_3_1_2_1_id_token_hint_must_name_the_signed_in_person(world: World) -> None:
    other = world.tokens("parent-a", "teen")["id_token"]
    own = world.tokens()["id_token"]
    assert "code" in silent(world, id_token_hint=own)
    assert silent(world, id_token_hint=other)["error"] == "login_required"
    assert silent(world, id_token_hint=own[:-8] + "AAAAAAAA")["error"] == "invalid_request"
    assert silent(world, id_token_hint=own, client_id="demo-confidential")["error"] == "invalid_request"
    assert 'name="password"' in world.follow(world.authorize(id_token_hint=other)).text


def test_silent_form_post_may_be_framed_by_the_app(world: World) -> None:
    world.tokens()
    answer = world.authorize(prompt="none", response_mode="form_post")
    assert PostedForm(answer).fields["code"]
    assert "frame-ancestors http://127.0.0.1:8765;" in answer.headers["content-security-policy"]
    assert "x-frame-options" not in answer.headers


def test_silent_code_is_recorded_as_such(world: World) -> None:
    recorded: list[Any] = []

    async def record(event: Any, at: int) -> None:
        recorded.append(event)

    world.tokens()
    object.__setattr__(world.smart, "record_security_event", record)
    silent(world)
    assert [(event.kind, event.detail["prompt"]) for event in recorded] == [("allow-app", "none")]


def test_consent_ended_during_a_silent_request_gives_no_code(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from fhir_server.smart.authorize import remembered_consents

    tokens = world.tokens()
    found = remembered_consents.find_decision

    async def and_then_ended(*arguments: Any) -> Any:
        decision = await found(*arguments)
        await world.store.key_values.delete_family(grant_family)
        return decision

    grant_family = grant(world, tokens["access_token"]).family
    monkeypatch.setattr(remembered_consents, "find_decision", and_then_ended)
    assert silent(world)["error"] == "consent_required"
    assert asyncio.run(world.store.key_values.list_all("code", world.clock())) == ()


def test_auth_time_is_of_the_sign_in_at_every_renewal(world: World) -> None:
    tokens = world.tokens()
    signed_in = world.clock() // SECOND
    world.clock.forward(5 * MINUTE)
    for response in (renewed(world), world.refresh(tokens["refresh_token"]).json()):
        assert claims_of(response["id_token"])[1]["auth_time"] == signed_in
    world.clock.forward(HOUR)
    assert asyncio.run(clients.find(world.store, "demo-public")) is not None
