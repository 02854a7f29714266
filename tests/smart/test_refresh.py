from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import msgspec
import pytest

from fhir_server.smart import demo
from fhir_server.smart.accounts import users
from fhir_server.smart.clients import clients
from fhir_server.smart.core.context import DAY, GRANT_LIFE, HOUR, REFRESH_GRACE, SECOND
from tests.smart.environment import ORIGIN, SCOPE, World, claims_of

CONFIDENTIAL = ("demo-confidential", demo.SECRET)


def test_smart_80_81_82_83_85_refresh_works_without_and_with_scope(world: World) -> None:
    first = world.tokens("parent-a", "teen")
    second = world.refresh(first["refresh_token"])
    third = world.refresh(second.json()["refresh_token"], scope=SCOPE)
    for answer in (second, third):
        body = answer.json()
        assert answer.status_code == 200
        assert body["token_type"].lower() == "bearer"
        assert type(body["expires_in"]) is int
        assert set(body["scope"].split()) <= set(SCOPE.split())
        assert body["patient"] == "teen"
        assert "no-store" in answer.headers["cache-control"]
        assert "no-cache" in answer.headers["pragma"]
        caller = world.principal(body["access_token"])
        assert (caller.patient, caller.fhir_user) == ("teen", "RelatedPerson/parent-a-of-teen")


def test_a_narrower_refresh_does_not_narrow_the_next(world: World) -> None:
    first = world.tokens()
    narrow = world.refresh(first["refresh_token"], scope="patient/*.rs").json()
    assert narrow["scope"] == "patient/*.rs"
    assert world.refresh(narrow["refresh_token"]).json()["scope"] == SCOPE


def test_refresh_with_wider_scope_is_refused(world: World) -> None:
    token = world.tokens(scope="patient/Patient.rs offline_access")["refresh_token"]
    assert world.refresh(token, scope="patient/*.rs").json()["error"] == "invalid_scope"
    assert world.refresh(token).status_code == 200


@pytest.mark.parametrize("token", ["unknown", ""])
def test_smart_84_an_unknown_refresh_token_is_refused(world: World, token: str) -> None:
    assert world.refresh(token).status_code == 400


def test_smart_84_a_refresh_token_is_bound_to_its_client(world: World) -> None:
    token = world.tokens()["refresh_token"]
    assert world.refresh(token, CONFIDENTIAL).json()["error"] == "invalid_grant"
    assert world.refresh(token).status_code == 200


def test_refresh_token_reuse_revokes_family(world: World) -> None:
    first = world.tokens()
    second = world.refresh(first["refresh_token"]).json()
    assert world.principal(second["access_token"])
    world.clock.forward(REFRESH_GRACE)
    assert world.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"
    assert world.principal(second["access_token"]) is None
    assert world.principal(first["access_token"]) is None
    assert world.refresh(second["refresh_token"]).status_code == 400


def test_concurrent_refreshes_get_the_same_tokens(world: World) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": world.tokens()["refresh_token"], "client_id": "demo-public"}

    async def race() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN) as client:
            return await asyncio.gather(*(client.post("/oauth/token", data=form) for _ in range(12)))

    answers = asyncio.run(race())
    assert [answer.status_code for answer in answers] == [200] * 12
    assert len({answer.text for answer in answers}) == 1
    assert world.principal(answers[0].json()["access_token"])
    assert world.refresh(answers[0].json()["refresh_token"]).status_code == 200


def test_repeated_refresh_gets_the_same_tokens_and_what_is_left_of_their_time(world: World) -> None:
    old = world.tokens("parent-a", "teen")
    first = world.refresh(old["refresh_token"]).json()
    world.clock.forward(REFRESH_GRACE - 1)
    again = world.refresh(old["refresh_token"]).json()
    assert again.pop("expires_in") == first.pop("expires_in") - REFRESH_GRACE // SECOND
    assert claims_of(again.pop("id_token"))[1]["sub"] == claims_of(first.pop("id_token"))[1]["sub"]  # signed anew
    assert again == first


def test_repeated_refresh_without_client_id_works_for_public_client(world: World) -> None:
    old = world.tokens()["refresh_token"]
    first = world.refresh(old, client_id=None).json()
    assert world.refresh(old, client_id=None).json()["access_token"] == first["access_token"]


def test_without_grace_a_repeated_refresh_revokes_the_family(world: World) -> None:
    world.smart = replace(world.smart, refresh_grace=0)
    world.open()
    old = world.tokens()["refresh_token"]
    new = world.refresh(old).json()
    assert world.refresh(old).json()["error"] == "invalid_grant"
    assert world.principal(new["access_token"]) is None


def test_refresh_token_expires_three_months_after_last_use(world: World) -> None:
    token = world.tokens()["refresh_token"]
    world.clock.forward(91 * DAY)
    token = world.refresh(token).json()["refresh_token"]
    world.clock.forward(91 * DAY)
    token = world.refresh(token).json()["refresh_token"]
    world.clock.forward(93 * DAY)
    assert world.refresh(token).status_code == 400


def test_grant_expires_three_years_after_consent_despite_refreshes(world: World) -> None:
    token, end = world.tokens()["refresh_token"], world.clock() + GRANT_LIFE
    while world.clock() + 90 * DAY < end:
        world.clock.forward(90 * DAY)
        token = world.refresh(token).json()["refresh_token"]
    world.clock.forward(end - world.clock() - DAY)
    answer = world.refresh(token).json()
    world.clock.forward(DAY)
    assert world.refresh(answer["refresh_token"]).status_code == 400
    assert world.refresh(world.tokens()["refresh_token"]).status_code == 200  # positive control: a new consent


def test_closed_or_disabled_account_cannot_refresh(world: World) -> None:
    first, second = world.tokens(), world.tokens("parent-a", "teen")
    user = asyncio.run(users.find(world.store, "parent-a"))
    assert user is not None
    asyncio.run(users.save(world.store, msgspec.structs.replace(user, disabled=True)))
    asyncio.run(users.remove(world.store, "adult", world.clock()))
    for tokens in (first, second):
        assert world.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
        assert world.principal(tokens["access_token"]) is None


def test_narrowing_client_scopes_narrows_its_tokens(world: World) -> None:
    tokens = world.tokens(scope="patient/*.rs user/*.rs offline_access")
    client = asyncio.run(clients.find(world.store, "demo-public"))
    assert client is not None
    asyncio.run(clients.save(world.store, msgspec.structs.replace(client, scopes="patient/Patient.rs offline_access")))
    assert [scope.text for scope in world.principal(tokens["access_token"]).scopes] == ["patient/Patient.rs"]
    assert world.refresh(tokens["refresh_token"]).json()["scope"] == "patient/Patient.rs offline_access"


def test_removed_clients_tokens_stay_revoked_when_it_is_recreated(world: World) -> None:
    tokens = world.tokens()
    client = asyncio.run(clients.find(world.store, "demo-public"))
    assert client is not None
    assert asyncio.run(clients.remove(world.store, "demo-public", world.clock()))
    asyncio.run(clients.save(world.store, client))
    assert world.principal(tokens["access_token"]) is None
    assert world.refresh(tokens["refresh_token"]).status_code == 400
    world.clock.forward(HOUR)
