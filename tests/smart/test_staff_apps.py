"""Apps for staff: the institution approves them once; others get nothing of a member of staff, unless the setting lets them ask."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest

from fhir_server.smart import demo
from fhir_server.smart.clients import clients, staff_apps
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.context import DAY, HOUR
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.tokens.launch import Launch, create_launch
from tests.smart.environment import Page, World, query

STAFF = ("clinician", "billing", "privacy-officer")
SCOPE = "openid fhirUser user/*.cruds offline_access"
REFUSED = "is not approved for staff of"


@pytest.fixture
def world(world: World) -> World:
    """With an app ``other`` that is not approved."""
    asyncio.run(clients.save(world.store, Client("other", "Other app", "app", "none", demo.CLIENTS[0].scopes, (demo.REDIRECT,))))
    return world


def asked(world: World, username: str, **changes: str | None) -> httpx.Response:
    """Where a request leads after the sign-in."""
    world.http.cookies.clear()
    return world.sign_in(world.follow(world.authorize(**({"scope": SCOPE, "client_id": "other"} | changes))), username)


def events(world: World) -> list[SecurityEvent]:
    recorded: list[SecurityEvent] = []

    async def record(event: SecurityEvent, at: int) -> None:
        recorded.append(event)

    world.smart = replace(world.smart, record_security_event=record)
    world.open()
    return recorded


def approve(world: World, client_id: str = "other", **terms: Any) -> staff_apps.StaffApproval:
    client = asyncio.run(clients.find(world.store, client_id))
    assert client is not None
    return asyncio.run(staff_apps.approve(world.store, client, world.clock(), **terms))


def redeemed(world: World, answer: httpx.Response, client_id: str = "other") -> dict[str, Any]:
    response = world.exchange(query(answer.headers["location"])["code"], client_id=client_id)
    assert response.status_code == 200, response.text
    return dict(response.json())


@pytest.mark.parametrize("username", STAFF)
def test_app_without_approval_gets_nothing_of_staff(world: World, username: str) -> None:
    recorded = events(world)
    page = asked(world, username)
    assert (page.status_code, REFUSED in page.text, "Other app" in page.text) == (403, True, True)
    (refusal,) = [event for event in recorded if event.kind == "allow-app"]
    assert (refusal.done, refusal.username, refusal.client_id) == (False, username, "other")
    assert refusal.detail["reason"] == "not approved for staff"
    assert "location" not in page.headers


def test_app_without_approval_cannot_be_allowed_by_a_form(world: World) -> None:
    """Also if the page was open when the approval ended."""
    approve(world)
    page = asked(world, "clinician", prompt="consent")
    assert Page(page.text).action == "/oauth/consent"
    assert asyncio.run(staff_apps.end(world.store, "other"))
    assert world.submit(page, decision="allow").status_code == 403


def test_patients_are_asked_as_before(world: World) -> None:
    page = asked(world, "adult", scope="launch/patient patient/*.rs")
    page = world.submit(page, patient="adult")
    assert Page(page.text).action == "/oauth/consent" and "is not part of" in page.text
    assert query(world.submit(page, decision="allow").headers["location"])["code"]


def test_approved_app_is_opened_from_a_chart_without_a_page(world: World) -> None:
    asyncio.run(staff_apps.end(world.store, "demo-public"))
    approve(world)
    handle = asyncio.run(create_launch(world.store, Launch("other", "clinician", "teen"), world.clock()))
    answer = asked(world, "clinician", scope="launch patient/*.rs openid fhirUser", launch=handle)
    tokens = redeemed(world, answer)
    assert tokens["patient"] == "teen"
    again = asyncio.run(create_launch(world.store, Launch("other", "billing", "teen"), world.clock()))
    refused = asked(world, "clinician", scope="launch patient/*.rs", launch=again)
    assert query(refused.headers["location"])["error"] == "access_denied"


def test_approval_bounds_scopes_and_length(world: World) -> None:
    approve(world, scopes="user/Patient.rs user/Observation.rs")
    tokens = redeemed(world, asked(world, "clinician"))
    assert set(tokens["scope"].split()) == {"openid", "fhirUser", "user/Patient.rs", "user/Observation.rs"}
    assert "refresh_token" not in tokens
    approve(world, offline=True)
    assert "refresh_token" in redeemed(world, asked(world, "clinician"))


def test_approval_ends_on_its_day_and_with_it_what_was_given(world: World) -> None:
    approve(world, until=world.clock() + DAY, offline=True)
    world.clock.forward(DAY - 1)
    tokens = redeemed(world, asked(world, "clinician"))
    principal = world.principal(tokens["access_token"])
    assert principal.expires == world.clock() + 1
    world.clock.forward(1)
    assert world.principal(tokens["access_token"]) is None
    assert world.refresh(tokens["refresh_token"], client_id="other").status_code == 400
    assert REFUSED in asked(world, "clinician").text


@pytest.mark.parametrize("how", ["ended", "narrowed", "renamed", "moved"])
def test_tokens_of_an_approval_end_with_it(world: World, how: str) -> None:
    approve(world, offline=True)
    tokens = redeemed(world, asked(world, "clinician"))
    assert world.principal(tokens["access_token"]) is not None
    client = asyncio.run(clients.find(world.store, "other"))
    assert client is not None
    if how == "ended":
        asyncio.run(staff_apps.end(world.store, "other"))
    elif how == "narrowed":
        approve(world, scopes="user/Patient.rs")
    else:
        changed = {"name": "Ad network"} if how == "renamed" else {"redirect_uris": (demo.REDIRECT, "https://evil.example/cb")}
        asyncio.run(clients.save(world.store, msgspec.structs.replace(client, **changed)))  # type: ignore[arg-type]
    assert world.principal(tokens["access_token"]) is None
    assert world.refresh(tokens["refresh_token"], client_id="other").status_code == 400


def test_code_of_an_approval_that_ended_is_refused(world: World) -> None:
    approve(world)
    code = query(asked(world, "clinician").headers["location"])["code"]
    asyncio.run(staff_apps.end(world.store, "other"))
    assert world.exchange(code, client_id="other").status_code == 400


def test_setting_lets_staff_decide_about_registered_apps(world: World) -> None:
    world.smart = replace(world.smart, staff_apps="ask")
    world.open()
    page = asked(world, "clinician")
    assert "has not approved this app for its staff" in page.text and "Keep access when you are not" not in page.text
    tokens = redeemed(world, world.submit(page, decision="allow"))
    assert "refresh_token" not in tokens and world.principal(tokens["access_token"]) is not None
    client = asyncio.run(clients.find(world.store, "other"))
    assert client is not None
    asyncio.run(clients.save(world.store, msgspec.structs.replace(client, registration_token_hash="x")))
    assert REFUSED in asked(world, "clinician").text


def test_refresh_tokens_from_before_approvals_end(world: World) -> None:
    """Grants of earlier versions name no approval."""
    approve(world, "other", offline=True)
    tokens = redeemed(world, asked(world, "clinician"))
    for key, text in asyncio.run(world.store.key_values.list_all("refresh", world.clock())):
        old = msgspec.json.encode({name: value for name, value in msgspec.json.decode(text).items() if name != "approval"})
        assert asyncio.run(world.store.key_values.replace_value("refresh", key, text, old))
    assert world.refresh(tokens["refresh_token"], client_id="other").status_code == 400


def test_staff_may_sign_in_to_an_app_that_gets_no_data(world: World) -> None:
    page = asked(world, "clinician", scope="openid fhirUser")
    assert query(world.submit(page, decision="allow").headers["location"])["code"]


def test_staff_cannot_link_a_chart_at_another_institution(world: World) -> None:
    """The portal of another health system asks as any app does; nobody approves it for staff by registering it as a partner."""
    partner = next(client for client in demo.CLIENTS if client.kind == "partner")
    page = asked(world, "clinician", client_id=partner.client_id, scope=partner.scopes)
    assert (page.status_code, REFUSED in page.text) == (403, True)


def test_approval_for_less_than_nothing_is_refused(world: World) -> None:
    for terms in ({"scopes": "user/Patient.rs system/*.rs"}, {"until": world.clock() - HOUR}):
        with pytest.raises(ValueError, match=r"not registered|ended already"):
            approve(world, **terms)
    with pytest.raises(ValueError, match="backend"):
        approve(world, "demo-backend")
