"""Silent answers and pushed requests keep what the rest of the server promises: staff's approvals, sessions, lists of grants, lengths."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhir_server.maintenance import end_access as ending
from fhir_server.smart.accounts import sessions
from fhir_server.smart.clients import clients, staff_apps
from fhir_server.smart.core import grant_index
from fhir_server.smart.core.context import HOUR, MINUTE, digest
from fhir_server.smart.core.token_grants import ACCESS, TokenGrant, find
from tests.smart.environment import SCOPE, World, query
from tests.smart.openid_helpers import silent
from tests.smart.test_pushed_requests import push

SHORT = "openid launch/patient patient/*.rs"
STAFF = "openid user/*.rs user/Observation.rs"


def grant(world: World, token: str) -> TokenGrant:
    found = asyncio.run(find(world.store, ACCESS, digest(token), world.clock()))
    assert found is not None
    return found


def listed(world: World, username: str = "adult") -> tuple[TokenGrant, ...]:
    return asyncio.run(grant_index.of_user(world.store, username, world.clock()))


def approve(world: World, **terms: Any) -> staff_apps.StaffApproval:
    client = asyncio.run(clients.find(world.store, "demo-public"))
    assert client is not None
    return asyncio.run(staff_apps.approve(world.store, client, world.clock(), **terms))


def redeemed(world: World, **changes: str | None) -> dict[str, Any]:
    response = world.exchange(silent(world, **changes)["code"])
    assert response.status_code == 200, response.text
    return dict(response.json())


def form_token(world: World) -> str:
    return sessions.form_token(world.http.cookies["session"])


def staff_answer(world: World, **changes: str | None) -> dict[str, str]:
    """The parameters with which an approved app is answered when a clinician signs in."""
    world.http.cookies.clear()
    return query(world.sign_in(world.follow(world.authorize(**changes)), "clinician").headers["location"])


def test_staff_get_silent_answers_under_their_approval_only(world: World) -> None:
    approval = approve(world)
    assert world.exchange(staff_answer(world, scope=STAFF)["code"]).status_code == 200
    assert grant(world, redeemed(world, scope=STAFF)["access_token"]).approval == approval.key
    approve(world, scopes="user/Observation.rs")
    assert silent(world, scope=STAFF)["error"] == "consent_required", "it was given under another approval"
    assert world.exchange(staff_answer(world, scope=STAFF)["code"]).status_code == 200
    assert set(redeemed(world, scope=STAFF)["scope"].split()) == {"openid", "user/Observation.rs"}
    token = redeemed(world, scope=STAFF)["access_token"]
    assert asyncio.run(staff_apps.end(world.store, "demo-public"))
    assert world.http.get("/oauth/userinfo", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert silent(world, scope=STAFF)["error"] == "consent_required"


def test_silent_code_is_not_redeemed_after_the_sign_out(world: World) -> None:
    first = world.tokens()
    code = silent(world)["code"]
    world.http.post("/sign-out", data={"token": form_token(world)})
    assert world.exchange(code).status_code == 400
    assert world.principal(first["access_token"]) is not None, "what was given for longer goes on"


def test_online_access_given_silently_ends_with_the_session(world: World) -> None:
    scope = f"{SHORT} online_access"
    world.tokens(scope=scope)
    again = redeemed(world, scope=scope)
    shown = {"Authorization": f"Bearer {again['access_token']}"}
    assert world.principal(again["access_token"]) is not None
    assert world.http.get("/oauth/userinfo", headers=shown).status_code == 200
    world.http.post("/sign-out", data={"token": form_token(world)})
    assert world.principal(again["access_token"]) is None
    assert world.http.get("/oauth/userinfo", headers=shown).status_code == 401


def test_remembered_consent_is_listed_as_long_as_it_can_be_used(world: World) -> None:
    first = grant(world, world.tokens(scope=SHORT)["access_token"])
    for _ in range(9):  # the first access token has expired then
        world.clock.forward(8 * MINUTE)
        world.http.get("/oauth/record")  # keeps the session open
    assert world.clock() > first.expires
    assert [each.family for each in listed(world)] == [first.family]
    assert "code" in silent(world, scope=SHORT)
    world.clock.forward(HOUR)
    assert listed(world) == (), "its session lapsed"


@pytest.mark.parametrize("is_redeemed", [True, False])
def test_silent_code_for_fewer_scopes_keeps_the_whole_grant_listed(world: World, is_redeemed: bool) -> None:
    first = world.tokens()
    fewer = silent(world, scope="openid patient/Condition.rs")
    if is_redeemed:
        assert world.exchange(fewer["code"]).status_code == 200
    world.clock.forward(2 * HOUR)
    (found,) = listed(world)
    assert set(found.scope.split()) == set(SCOPE.split()) and world.refresh(first["refresh_token"]).status_code == 200


@pytest.mark.parametrize("whose", [ending.Ending(), ending.Ending("adult"), ending.Ending(client_id="demo-public")])
def test_end_access_ends_remembered_consents(world: World, monkeypatch: pytest.MonkeyPatch, whose: ending.Ending) -> None:
    monkeypatch.setattr(ending, "_PAUSE", 0.0)
    world.tokens()
    world.clock.forward(2 * MINUTE)
    asyncio.run(ending.end_access(world.store, whose, world.clock()))
    world.http.cookies.clear()
    world.sign_in(world.http.get("/sign-in"), "adult")
    assert silent(world)["error"] == "consent_required" and listed(world) == ()


def test_pushed_parameters_have_the_same_lengths(world: World) -> None:
    assert push(world, state="s" * 4_000).status_code == 201, "the control"
    answer = push(world, state="s" * 4_001)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert "location" not in answer.headers


def test_pushed_request_stores_known_parameters_only(world: World) -> None:
    assert push(world, unknown="u" * 10_000).status_code == 201
    (stored,) = asyncio.run(world.store.key_values.list_all("pushed-request", world.clock()))
    assert b"unknown" not in stored[1]
