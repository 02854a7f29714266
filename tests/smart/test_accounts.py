from __future__ import annotations

import asyncio
from typing import Any

import anyio
import msgspec
import pytest

from fhir_server.smart import demo
from fhir_server.smart.accounts import users
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.context import HOUR, SESSION_IDLE
from fhir_server.smart.core.token_grants import TokenGrant, active_grants
from fhir_server.smart.tokens.tokens import issue, issue_operator_token
from tests.smart.environment import World

PUBLIC = Client("app-1", "App", "app", "none", "patient/*.rs", ("https://app.example/cb",))


def run(call: Any) -> Any:
    return asyncio.run(call)


def test_demo_load_creates_every_person_and_client(world: World) -> None:
    people = {user.username: user.person() for user in run(users.list_all(world.store))}
    assert set(people) == {row[0] for row in demo.PEOPLE}
    assert people["parent-a"].patient is None
    assert "parent-a-of-teen" in people["parent-a"].related_persons
    assert people["newly-adult"].patient == "newly-adult"
    assert people["clinician"].practitioner == "dr-rivera"
    assert {client.client_id for client in run(clients.list_all(world.store))} == {client.client_id for client in demo.CLIENTS}


def test_reloading_the_demo_keeps_client_keys(world: World) -> None:
    before = run(demo.private_keys(world.store, "demo-backend"))
    run(demo.load(world.store))
    assert run(demo.private_keys(world.store, "demo-backend")) == before
    assert run(demo.private_keys(world.store, "demo-public")) is None


def test_username_differing_in_case_or_spaces_is_refused_as_taken(world: World) -> None:
    with pytest.raises(ValueError, match="already"):
        run(users.create(world.store, " ADULT", "long-enough-1", "patient"))


@pytest.mark.parametrize(("username", "password"), [("", "long-enough-1"), ("a\x00b", "long-enough-1"), ("new", "short")])
def test_an_account_needs_a_name_and_a_password(world: World, username: str, password: str) -> None:
    with pytest.raises(ValueError, match=r"needs|must"):
        run(users.create(world.store, username, password, "patient"))


def test_account_change_applies_to_the_next_request(world: World) -> None:
    token = world.tokens("parent-a", "teen")["access_token"]
    user = run(users.find(world.store, "parent-a"))
    run(users.save(world.store, msgspec.structs.replace(user, related_persons=())))
    assert world.principal(token) is None  # it names a RelatedPerson that is no longer the account's


@pytest.mark.parametrize("change", ["user", "client"])
def test_saving_user_or_client_advances_the_security_counter(world: World, change: str) -> None:
    async def counter() -> int:
        async with world.store.snapshot() as snapshot:
            return (await snapshot.permission_epoch(None)).security

    before = run(counter())
    if change == "user":
        run(users.save(world.store, run(users.find(world.store, "adult"))))
    else:
        run(clients.save(world.store, PUBLIC))
    assert run(counter()) > before


def test_recreated_account_does_not_inherit_tokens(world: World) -> None:
    token = world.tokens()["access_token"]
    assert run(users.remove(world.store, "adult", world.clock()))
    run(users.create(world.store, "adult", "long-enough-1", "patient", patient="adult"))
    assert world.principal(token) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "a b"},
        {"redirect_uris": ()},
        {"redirect_uris": ("javascript:alert(1)",)},
        {"redirect_uris": ("https://app.example/cb#x",)},
        {"redirect_uris": ("https://app.example/ cb",)},
        {"redirect_uris": ("/cb",)},
        {"kind": "backend"},
        {"method": "private_key_jwt"},
        {"method": "client_secret"},
        {"secret_hash": "x"},
        {"jwks": {"keys": []}},
    ],
    ids=repr,
)
def test_an_unsafe_registration_is_refused(world: World, changes: dict[str, Any]) -> None:
    run(clients.save(world.store, PUBLIC))  # positive control
    with pytest.raises(ValueError, match=r"client|redirect|secret|keys|private_key_jwt"):
        run(clients.save(world.store, msgspec.structs.replace(PUBLIC, **changes)))


def test_new_client_secret_matches_and_is_not_stored(world: World) -> None:
    client, secret = clients.with_new_secret(msgspec.structs.replace(PUBLIC, method="client_secret"))
    run(clients.save(world.store, client))
    kept = run(clients.find(world.store, "app-1"))
    assert kept.matches_secret(secret)
    assert not kept.matches_secret(secret + "x")
    assert secret not in repr(kept)


def test_an_operators_token_works_for_backends_and_for_persons(world: World) -> None:
    now = world.clock()
    backend = world.principal(run(issue_operator_token(world.store, "demo-backend", "system/*.cruds", now)))
    parent = world.principal(
        run(issue_operator_token(world.store, "demo-public", "patient/*.rs", now, username="parent-a", patient="teen"))
    )
    assert (backend.person, backend.scopes[0].interactions) == (None, "cruds")
    assert (parent.username, parent.patient, parent.scopes[0].text) == ("parent-a", "teen", "patient/*.rs")


@pytest.mark.parametrize(
    "given",
    [
        {"client_id": "nobody", "scope": "system/*.rs"},
        {"client_id": "demo-backend", "scope": "patient/*.rs"},
        {"client_id": "demo-public", "scope": "patient/*.rs"},
        {"client_id": "demo-public", "scope": "patient/*.rs", "username": "nobody", "patient": "adult"},
        {"client_id": "demo-public", "scope": "patient/*.rs", "username": "adult"},
        {"client_id": "demo-backend", "scope": "system/*.rs", "username": "adult"},
        {"client_id": "demo-public", "scope": "patient/*.sr", "username": "adult", "patient": "adult"},
    ],
    ids=repr,
)
def test_smart_59_invalid_operator_token_request_is_refused(world: World, given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"client|user|scopes"):
        run(issue_operator_token(world.store, now=world.clock(), **given))


def test_issuing_refuses_scopes_that_do_not_match_the_grant(world: World) -> None:
    for granted in (
        TokenGrant("demo-public", "patient/*.rs", "f", username="adult"),
        TokenGrant("demo-public", "system/*.rs", "f", username="adult"),
        TokenGrant("demo-backend", "user/*.rs", "f"),
    ):
        with pytest.raises(ValueError, match="scopes"):
            run(issue(world.store, granted, world.clock()))


def test_active_grants_list_each_connected_app_once(world: World) -> None:
    world.tokens()
    world.tokens("parent-a", "teen")
    found = {(granted.username, granted.client_id, granted.patient) for granted in run(active_grants(world.store, world.clock()))}
    assert found == {("adult", "demo-public", "adult"), ("parent-a", "demo-public", "teen")}


def test_concurrent_related_person_links_are_all_stored(world: World) -> None:
    names = [f"related-{number}" for number in range(12)]

    async def race() -> None:
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(users.link, world.store, "adult", name)

    asyncio.run(race())
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    assert sorted(user.related_persons) == sorted(names)
    assert asyncio.run(users.link(world.store, " ADULT ", names[0])) == user  # a second link changes nothing


def test_linking_an_unknown_account_fails(world: World) -> None:
    with pytest.raises(LookupError):
        asyncio.run(users.link(world.store, "nobody", "related"))


def test_active_grant_lists_start_time_and_original_scope(world: World) -> None:
    begun = world.clock()
    tokens = world.tokens()
    world.clock.forward(HOUR)
    narrow = world.refresh(tokens["refresh_token"], scope="patient/*.rs").json()
    (listed,) = asyncio.run(active_grants(world.store, world.clock()))
    assert (listed.since, listed.issued) == (begun, world.clock())
    assert listed.scope == tokens["scope"] != narrow["scope"]


def test_online_grant_is_not_listed_after_the_session_ends(world: World) -> None:
    world.tokens(scope="launch/patient online_access patient/*.rs")
    assert len(asyncio.run(active_grants(world.store, world.clock()))) == 1
    world.clock.forward(SESSION_IDLE - 1)
    assert len(asyncio.run(active_grants(world.store, world.clock()))) == 1
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    asyncio.run(users.save(world.store, user))
    assert asyncio.run(active_grants(world.store, world.clock())) == ()
