"""Back to the app before consent, and refusals in the audit log with client and cause."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from fhir_server.smart.clients.registration_routes import PATH
from fhir_server.smart.core.persons import EncounterChoice, Person
from fhir_server.smart.core.security_events import SecurityEvent
from tests.portal.environment import Form
from tests.smart.environment import World, query
from tests.smart.registration_helpers import METADATA, bearer, made

VISIT = "launch/patient launch/encounter patient/*.rs"


async def _visits(person: Person, patient: str, withheld: frozenset[str], now: int) -> Sequence[EncounterChoice]:
    return [EncounterChoice("visit-1", "4 March, check-up")]


@pytest.fixture
def events(world: World) -> list[SecurityEvent]:
    """What is recorded from now on."""
    found: list[SecurityEvent] = []

    async def record(event: SecurityEvent, at: int) -> None:
        found.append(event)

    object.__setattr__(world.smart, "record_security_event", record)
    return found


def _canceled(world: World, page: httpx.Response) -> httpx.Response:
    (form,) = Form(page.text, "/oauth/cancel").forms
    return world.http.post("/oauth/cancel", data=form)


@pytest.mark.parametrize("step", ["sign-in", "record", "visit"])
def test_cancel_leads_back_to_the_app_with_access_denied(world: World, events: list[SecurityEvent], step: str) -> None:
    object.__setattr__(world.smart, "encounters", _visits)
    page = world.follow(world.authorize(scope=VISIT))
    if step != "sign-in":
        page = world.sign_in(page, "adult")
    if step == "visit":
        page = world.submit(page, patient="adult")
    assert "Cancel and go back to Demo phone app" in page.text
    answer = _canceled(world, page)
    back = query(answer.headers["location"])
    assert answer.headers["location"].startswith("http://127.0.0.1:8765/callback?")
    assert (back["error"], back["state"]) == ("access_denied", world.asked()["state"])
    last = events[-1]
    assert (last.kind, last.done, last.client_id, last.detail["cause"]) == ("allow-app", False, "demo-public", "canceled before consent")
    assert last.username == ("" if step == "sign-in" else "adult")
    assert _canceled(world, page).status_code == 400  # the request is answered


def test_cancel_at_the_second_factor_leads_back_to_the_app(world: World) -> None:
    object.__setattr__(world.smart, "second_factor", frozenset({"patient", "clinician"}))
    page = world.sign_in(world.follow(world.authorize()), "adult")
    assert "Cancel and go back to the app" in page.text
    assert query(_canceled(world, page).headers["location"])["error"] == "access_denied"
    other = world.sign_in(world.http.get("/sign-in", params={"next": "/apps"}), "adult")
    assert "Cancel and go back" not in other.text


def test_cancel_needs_the_form_of_this_browser(world: World) -> None:
    page = world.follow(world.authorize())
    (form,) = Form(page.text, "/oauth/cancel").forms
    assert world.browser().post("/oauth/cancel", data=form).status_code == 403
    assert world.http.post("/oauth/cancel", data=form | {"token": "x"}).status_code == 403
    assert query(_canceled(world, page).headers["location"])["error"] == "access_denied"  # the control


def test_sign_in_without_an_app_offers_no_way_back(world: World) -> None:
    assert "/oauth/cancel" not in world.http.get("/sign-in").text


# refusals


@pytest.mark.parametrize(
    ("changes", "error", "cause"),
    [
        ({"code_challenge": None}, "invalid_request", "PKCE"),
        ({"code_challenge_method": "plain"}, "invalid_request", "PKCE"),
        ({"redirect_uri": "https://evil.example/<text-of-choice>"}, "invalid_request", "redirect URI"),
        ({"aud": "https://other.example/text-of-choice"}, "invalid_request", "aud"),
        ({"scope": "text-of-choice"}, "invalid_scope", ""),
        ({"launch": "text-of-choice"}, "invalid_request", "launch"),
        ({"response_type": "token"}, "unsupported_response_type", ""),
        ({"prompt": "none"}, "login_required", "prompt=none"),
    ],
)
def test_refused_request_is_recorded_with_client_and_cause(
    world: World, events: list[SecurityEvent], changes: dict[str, str | None], error: str, cause: str
) -> None:
    world.authorize(**changes)
    (event,) = events
    assert (event.kind, event.done, event.client_id, event.detail["error"]) == ("allow-app", False, "demo-public", error)
    assert cause in event.detail.get("cause", "") and "text-of-choice" not in str(event)


def test_refused_request_of_an_unknown_client_records_no_chosen_text(world: World, events: list[SecurityEvent]) -> None:
    world.authorize(client_id="text-of-choice")
    (event,) = events
    assert event.client_id == "" and "text-of-choice" not in str(event)


def test_refused_requests_are_recorded_within_a_limit(world: World, events: list[SecurityEvent], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhir_server.smart.core.rate_limits.RateLimit.take", _full)
    world.authorize(scope="text-of-choice")
    assert events == []


async def _full(*_: Any) -> int:
    return 60


def test_denial_is_recorded_with_its_cause(world: World, events: list[SecurityEvent]) -> None:
    world.submit(world.consent_page(), decision="deny")
    assert events[-1].detail == {"error": "access_denied", "cause": "denied by the person"}


# management of registrations


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("named", ["text-of-choice", "demo-public", "own"])
def test_registration_event_names_only_a_client_that_proved_itself(
    world: World, events: list[SecurityEvent], method: str, named: str
) -> None:
    app = made(world)
    events.clear()
    client_id = app["client_id"] if named == "own" else named
    answer = world.http.request(method, f"{PATH}/{client_id}", json=METADATA, headers=bearer("wrong"))
    assert answer.status_code == 401
    (event,) = events
    assert (event.done, event.client_id, event.detail) == (False, "", {"error": "invalid_token"}) and "text-of-choice" not in str(event)


def test_registration_event_of_the_client_itself_names_it(world: World, events: list[SecurityEvent]) -> None:
    app = made(world)
    url, token = f"{PATH}/{app['client_id']}", bearer(app["registration_access_token"])
    events.clear()
    world.http.request("PUT", url, json=METADATA, headers=token)  # without its client_id
    world.http.request("PUT", url, json=METADATA | {"client_id": app["client_id"]}, headers=token)
    world.http.request("DELETE", url, headers=token)
    assert [(event.kind, event.done, event.client_id) for event in events] == [
        ("change-app", False, app["client_id"]),
        ("change-app", True, app["client_id"]),
        ("remove-app", True, app["client_id"]),
    ]
    assert asyncio.run(world.store.key_values.get("client", app["client_id"], 0)) is None
