"""What is allowed is what the consent page showed: the record, the visit, the scopes, and the app as it was then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import pytest

from fhir_server.smart.authorize.consent_step import CHANGED
from fhir_server.smart.core.context import MINUTE
from fhir_server.smart.core.persons import EncounterChoice, Person
from fhir_server.smart.core.scopes import resource_scopes
from tests.smart.environment import Page, World, _grouped, query
from tests.smart.registration_helpers import METADATA, REDIRECT, bearer, made, path

SCOPE = "launch/patient launch/encounter patient/Observation.rs patient/Condition.rs"


async def _visits(person: Person, patient: str, withheld: frozenset[str], now: int) -> Sequence[EncounterChoice]:
    return [EncounterChoice("visit-1", "4 March, check-up"), EncounterChoice("visit-2", "5 March, surgery")]


def _answer(world: World, page: httpx.Response, **changed: str) -> httpx.Response:
    sent = [(name, value) for name, value in Page(page.text).sent if name not in changed]
    return world.http.post("/oauth/consent", data=_grouped([*sent, *changed.items(), ("decision", "allow")]))


def _other_tab(world: World, page: httpx.Response, **chosen: str) -> httpx.Response:
    """Choose again in another tab of the same request, and return the page that follows."""
    handle, shown = dict(Page(page.text).sent)["request"], page
    for page_path, field in (("/oauth/record", "patient"), ("/oauth/visit", "encounter")):
        if field in chosen:
            token = dict(Page(page.text).sent)["token"]
            shown = world.follow(world.http.post(page_path, data={"token": token, "request": handle, field: chosen[field]}))
    return shown


def test_answer_in_one_tab_does_not_allow_the_record_of_another(world: World) -> None:
    page = world.consent_page("parent-a", "child", scope="launch/patient patient/*.rs")
    assert "Child" in page.text
    second = _other_tab(world, page, patient="teen")
    answer = _answer(world, page)
    assert answer.status_code == 400 and CHANGED in answer.text and "Teen" in answer.text
    tokens = world.exchange(query(_answer(world, answer).headers["location"])["code"]).json()
    assert tokens["patient"] == "teen"  # the page that was shown again says so
    assert _answer(world, second).status_code == 400  # answered already


def test_answer_for_the_record_that_was_shown_is_accepted(world: World) -> None:
    page = world.consent_page("parent-a", "child", scope="launch/patient patient/*.rs")
    page = _other_tab(world, page, patient="teen")
    page = _other_tab(world, page, patient="child")
    assert world.exchange(query(_answer(world, page).headers["location"])["code"]).json()["patient"] == "child"


def test_visit_is_shown_and_an_answer_is_bound_to_it(world: World) -> None:
    object.__setattr__(world.smart, "encounters", _visits)
    page = world.submit(world.consent_page(scope=SCOPE), encounter="visit-1")
    assert "4 March, check-up" in page.text
    _other_tab(world, page, encounter="visit-2")
    answer = _answer(world, page)
    assert answer.status_code == 400 and "5 March, surgery" in answer.text
    assert world.exchange(query(_answer(world, answer).headers["location"])["code"]).json()["encounter"] == "visit-2"


@pytest.mark.parametrize("widens", [True, False])
def test_scopes_that_changed_meanwhile_are_shown_again(world: World, widens: bool) -> None:
    def limited(types: set[str]) -> Any:
        async def effective(person: Person, patient: str | None, scope: str, now: int) -> dict[str, tuple[str, ...]]:
            return {one.text: (one.text,) if one.type in types else () for one in resource_scopes(scope)}

        return effective

    fewer, more = {"Observation"}, {"Observation", "Condition"}
    object.__setattr__(world.smart, "effective_scopes", limited(fewer if widens else more))
    page = world.consent_page(scope="launch/patient patient/Observation.rs patient/Condition.rs")
    object.__setattr__(world.smart, "effective_scopes", limited(more if widens else fewer))
    answer = _answer(world, page)
    assert answer.status_code == 400 and CHANGED in answer.text
    assert ("Condition" in answer.text) == widens


@pytest.mark.parametrize("shown", ["", "0" * 64, "é"])
def test_answer_without_what_was_shown_allows_nothing(world: World, shown: str) -> None:
    page = world.consent_page()
    assert _answer(world, page, shown=shown).status_code == 400
    assert query(_answer(world, page).headers["location"])["code"]  # the control


def test_answer_of_another_session_allows_nothing(world: World) -> None:
    page = world.consent_page()
    shown = dict(Page(page.text).sent)["shown"]
    world.http.cookies.clear()
    assert _answer(world, world.consent_page(), shown=shown).status_code == 400


# an app that changes


def change(world: World, app: dict[str, Any], **changes: Any) -> None:
    """Change the registration as the app itself does (RFC 7592)."""
    body = METADATA | {"client_id": app["client_id"]} | changes
    answer = world.http.request("PUT", path(app), json=body, headers=bearer(app["registration_access_token"]))
    assert answer.status_code == 200, answer.text


def tokens_of(world: World, app: dict[str, Any]) -> dict[str, Any]:
    asked = {"client_id": app["client_id"], "redirect_uri": REDIRECT}
    return dict(world.exchange(world.code(scope="launch/patient offline_access patient/*.rs", **asked), **asked).json())


CHANGES = [
    {"client_name": "Ad network"},
    {"redirect_uris": ["https://ads.example/callback", REDIRECT]},
    {"client_uri": "https://ads.example"},
    {"logo_uri": "https://ads.example/logo.png"},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_app_that_changed_has_no_access_until_it_is_allowed_again(world: World, changes: dict[str, Any]) -> None:
    app = made(world)
    tokens = tokens_of(world, app)
    assert world.principal(tokens["access_token"])
    world.clock.forward(MINUTE)
    change(world, app, **changes)
    assert world.principal(tokens["access_token"]) is None
    refused = world.refresh(tokens["refresh_token"], client_id=app["client_id"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    page = world.consent_page(client_id=app["client_id"], redirect_uri=REDIRECT, scope="launch/patient patient/*.rs")
    assert "has changed since you allowed it" in page.text and "called Heart diary, on app.example" in page.text
    assert world.principal(tokens_of(world, app)["access_token"])
    assert world.principal(tokens["access_token"]) is None
    again = world.consent_page(client_id=app["client_id"], redirect_uri=REDIRECT, scope="launch/patient patient/*.rs")
    assert "has changed since" not in again.text


@pytest.mark.parametrize("changes", [{}, {"contacts": ["new@app.example"]}, {"redirect_uris": ["https://app.example/other", REDIRECT]}])
def test_other_changes_keep_the_access_of_an_app(world: World, changes: dict[str, Any]) -> None:
    app = made(world)
    tokens = tokens_of(world, app)
    world.clock.forward(MINUTE)
    change(world, app, **changes)
    assert world.principal(tokens["access_token"])
    assert world.refresh(tokens["refresh_token"], client_id=app["client_id"]).status_code == 200


def test_app_renamed_between_the_page_and_the_answer_is_shown_again(world: World) -> None:
    app = made(world)
    page = world.consent_page(client_id=app["client_id"], redirect_uri=REDIRECT, scope="launch/patient patient/*.rs")
    change(world, app, client_name="Ad network")
    answer = _answer(world, page)
    assert answer.status_code == 400 and CHANGED in answer.text and "Ad network" in answer.text


def test_app_renamed_between_the_answer_and_the_exchange_gets_no_token(world: World) -> None:
    app = made(world)
    asked = {"client_id": app["client_id"], "redirect_uri": REDIRECT}
    code = world.code(scope="launch/patient patient/*.rs", **asked)
    change(world, app, client_name="Ad network")
    assert world.exchange(code, **asked).json()["error"] == "invalid_grant"


def test_grant_of_an_earlier_version_ends_with_a_change_after_it(world: World) -> None:
    app = made(world)
    tokens = tokens_of(world, app)
    (record,) = asyncio.run(world.store.key_values.list_all("access", world.clock()))
    earlier = {name: value for name, value in msgspec.json.decode(record[1]).items() if name != "app"}
    asyncio.run(world.store.key_values.replace_value("access", record[0], record[1], msgspec.json.encode(earlier)))
    assert world.principal(tokens["access_token"])
    world.clock.forward(MINUTE)
    change(world, app, client_name="Ad network")
    assert world.principal(tokens["access_token"]) is None
