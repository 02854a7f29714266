"""A refresh token that is used again: within the grace the same client gets the same tokens; anything else ends the family."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fhir_server.smart import demo
from fhir_server.smart.accounts import sessions, users
from fhir_server.smart.clients import clients
from fhir_server.smart.core.context import REFRESH_GRACE
from tests.smart.environment import SCOPE, World

CONFIDENTIAL = ("demo-confidential", demo.SECRET)


def refused(answer: Any) -> bool:
    return (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def rotated(world: World) -> tuple[str, dict[str, Any]]:
    """A used refresh token, and the answer to its use."""
    old = world.tokens()["refresh_token"]
    return old, world.refresh(old).json()


def test_refresh_replay_in_the_grace_gives_no_second_pair_of_tokens(world: World) -> None:
    old, new = rotated(world)
    for _ in range(5):
        again = world.refresh(old).json()
        assert (again["access_token"], again["refresh_token"]) == (new["access_token"], new["refresh_token"])
    kinds = ("access", "refresh")
    assert [len(asyncio.run(world.store.key_values.list_all(kind, world.clock()))) for kind in kinds] == [2, 1]


@pytest.mark.parametrize("late", [0, 1])
def test_refresh_replay_from_the_end_of_the_grace_revokes_the_family(world: World, late: int) -> None:
    old, new = rotated(world)
    world.clock.forward(REFRESH_GRACE - 1)
    assert world.refresh(old).status_code == 200  # the control
    world.clock.forward(1 + late)
    assert refused(world.refresh(old))
    assert world.principal(new["access_token"]) is None
    assert refused(world.refresh(new["refresh_token"]))


def test_refresh_replay_does_not_extend_the_grace(world: World) -> None:
    old, new = rotated(world)
    for _ in range(2):
        world.clock.forward(REFRESH_GRACE // 2 - 1)
        assert world.refresh(old).status_code == 200
    world.clock.forward(2)
    assert refused(world.refresh(old))
    assert world.principal(new["access_token"]) is None


def test_refresh_replay_after_the_new_token_was_used_revokes_the_family(world: World) -> None:
    old, new = rotated(world)
    newest = world.refresh(new["refresh_token"]).json()
    assert world.principal(newest["access_token"])  # the control
    assert refused(world.refresh(old))
    assert world.principal(newest["access_token"]) is None
    assert refused(world.refresh(newest["refresh_token"]))


def test_refresh_replay_by_another_client_revokes_the_family(world: World) -> None:
    old, new = rotated(world)
    assert world.principal(new["access_token"])  # the control
    assert refused(world.refresh(old, CONFIDENTIAL))
    assert world.principal(new["access_token"]) is None
    assert refused(world.refresh(old))


def test_refresh_replay_without_the_clients_secret_gets_nothing(world: World) -> None:
    old = world.exchange(world.code(client_id="demo-confidential"), CONFIDENTIAL).json()["refresh_token"]
    new = world.refresh(old, CONFIDENTIAL).json()
    for auth in (("demo-confidential", "wrong"), None):
        answer = world.refresh(old, auth, client_id=None)
        assert answer.status_code == 401 and "access_token" not in answer.json()
    assert world.refresh(old, CONFIDENTIAL).json()["access_token"] == new["access_token"]  # the control


def test_refresh_replay_with_other_scopes_gets_no_tokens(world: World) -> None:
    old = world.tokens()["refresh_token"]
    new = world.refresh(old, scope="patient/*.rs").json()
    assert refused(world.refresh(old))
    assert refused(world.refresh(old, scope=SCOPE))
    assert world.refresh(old, scope="patient/*.rs").json()["access_token"] == new["access_token"]


@pytest.mark.parametrize("which", ["used", "access_token", "refresh_token"])
def test_refresh_replay_after_revocation_gets_nothing(world: World, which: str) -> None:
    old, new = rotated(world)
    token = (new | {"used": old})[which]
    assert world.post("/oauth/revoke", CONFIDENTIAL, token=token).json()["error"] == "invalid_grant"
    assert world.refresh(old).json()["access_token"] == new["access_token"]  # the control
    assert world.post("/oauth/revoke", client_id="demo-public", token=token).status_code == 200
    assert refused(world.refresh(old))
    assert world.principal(new["access_token"]) is None


@pytest.mark.parametrize("change", ["disabled", "removed"])
def test_refresh_replay_after_the_account_is_closed_gets_nothing(world: World, change: str) -> None:
    old, _ = rotated(world)
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    if change == "disabled":
        asyncio.run(users.save(world.store, msgspec.structs.replace(user, disabled=True)))
    else:
        asyncio.run(users.remove(world.store, "adult", world.clock()))
    assert refused(world.refresh(old))


def test_refresh_replay_after_the_session_ended_gets_nothing(world: World) -> None:
    scope = SCOPE.replace("offline_access", "online_access")
    old = world.tokens(scope=scope)["refresh_token"]
    new = world.refresh(old).json()
    assert world.refresh(old).json()["access_token"] == new["access_token"]  # the control
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    for session in asyncio.run(sessions.list_all(world.smart, user)):
        asyncio.run(sessions.end_by_key(world.smart, session.key))
    assert refused(world.refresh(old))


def test_refresh_replay_after_the_client_lost_scopes_gets_no_tokens(world: World) -> None:
    old, _ = rotated(world)
    client = asyncio.run(clients.find(world.store, "demo-public"))
    assert client is not None
    asyncio.run(clients.save(world.store, msgspec.structs.replace(client, scopes="patient/Patient.rs offline_access")))
    assert refused(world.refresh(old))


def test_refresh_replay_tokens_cannot_be_opened_with_what_is_stored(world: World) -> None:
    world.smart = replace(world.smart, key="an operator's key of this test server")
    old, new = rotated(world)
    records = asyncio.run(world.store.key_values.list_all("successor", world.clock()))
    assert len(records) == 1
    stored = b"".join(key.encode() + value for kind in _KINDS for key, value in asyncio.run(world.store.key_values.list_all(kind, 0)))
    assert not any(text.encode() in stored for text in (old, new["access_token"], new["refresh_token"]))
    assert asyncio.run(world.store.key_values.list_all("successor", world.clock() + REFRESH_GRACE)) == ()


_KINDS = ("access", "refresh", "spent-refresh", "successor")
