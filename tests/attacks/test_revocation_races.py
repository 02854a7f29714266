"""Access that is revoked during a request stays revoked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhir_server.smart.accounts import sessions, users
from fhir_server.smart.clients import clients
from fhir_server.smart.core import token_grants
from fhir_server.smart.core.context import HOUR, MINUTE
from tests.smart.environment import World
from tests.waiting import let_others_run


def _ended_at(world: World, monkeypatch: pytest.MonkeyPatch, moment: str) -> list[str]:
    """Revoke the grant, as Connected apps does, at this step of an exchange.  Returns the list of steps that ran."""
    secrets, steps, revoked = world.store.key_values, [], []

    def watched(name: str, kept: Any) -> Any:
        async def step(kind: str, key: str, *rest: Any) -> Any:
            steps.append(f"{name} {kind}")
            if steps[-1] == moment and not revoked:
                revoked.append(moment)
                for one in await token_grants.active_grants(world.store, world.clock()):
                    await secrets.delete_family(one.family)
            return await kept(kind, key, *rest)

        return step

    for name in ("get", "put_if_absent", "put", "pop", "exchange"):
        monkeypatch.setattr(secrets, name, watched(name, getattr(secrets, name)))
    return steps


@pytest.mark.parametrize("moment", ["get refresh", "exchange refresh", "never"])
def test_revocation_race_refresh_does_not_outlive_the_grant(world: World, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    old = world.tokens()
    world.clock.forward(2 * HOUR)  # so that only the refresh token is left of the grant
    steps = _ended_at(world, monkeypatch, moment)
    answer = world.refresh(old["refresh_token"])
    assert {"get refresh", "exchange refresh"} <= set(steps) or moment == "get refresh"
    monkeypatch.undo()
    standing = asyncio.run(token_grants.active_grants(world.store, world.clock()))
    if moment == "never":  # the control
        assert world.principal(answer.json()["access_token"]) and len(standing) == 1
        assert world.refresh(answer.json()["refresh_token"]).status_code == 200
    else:
        assert (answer.status_code, answer.json()["error"], standing) == (400, "invalid_grant", ())


@pytest.mark.parametrize("moment", ["get refresh", "get spent-refresh", "get successor", "get access", "never"])
def test_revocation_race_repeated_refresh_does_not_outlive_the_grant(world: World, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    old = world.tokens()
    assert world.refresh(old["refresh_token"]).status_code == 200
    steps = _ended_at(world, monkeypatch, moment)
    answer = world.refresh(old["refresh_token"])
    assert moment in (*steps, "never")
    monkeypatch.undo()
    standing = asyncio.run(token_grants.active_grants(world.store, world.clock()))
    if moment == "never":  # the control
        assert world.principal(answer.json()["access_token"]) and len(standing) == 1
    else:
        assert (answer.status_code, answer.json()["error"], standing) == (400, "invalid_grant", ())


@pytest.mark.parametrize("moment", ["put_if_absent spent-code", "put access", "put refresh", "pop code", "never"])
def test_revocation_race_code_exchange_does_not_outlive_the_grant(world: World, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    code = world.code()
    steps = _ended_at(world, monkeypatch, moment)
    answer = world.exchange(code)
    assert {"put_if_absent spent-code", "put access", "put refresh", "pop code"} <= set(steps)
    monkeypatch.undo()
    standing = asyncio.run(token_grants.active_grants(world.store, world.clock()))
    if moment == "never":  # the control
        assert world.principal(answer.json()["access_token"]) and len(standing) == 1
    else:
        assert (answer.status_code, answer.json()["error"], standing) == (400, "invalid_grant", ())


def test_revocation_race_update_does_not_restore_deleted_client(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = {"client_name": "A diary", "redirect_uris": ["https://app.example/cb"], "token_endpoint_auth_method": "none"}
    done = world.http.post("/oauth/register", json=metadata).json()
    url, bearer = f"/oauth/register/{done['client_id']}", {"Authorization": f"Bearer {done['registration_access_token']}"}
    changed = metadata | {"client_id": done["client_id"], "client_name": "Another diary"}
    assert world.http.request("PUT", url, json=changed, headers=bearer).status_code == 200  # the control
    put = world.store.key_values.put

    async def late(kind: str, *rest: Any) -> None:
        if kind == "client":
            assert await clients.remove(world.store, done["client_id"], world.clock())
        await put(kind, *rest)

    monkeypatch.setattr(world.store.key_values, "put", late)
    assert world.http.request("PUT", url, json=changed, headers=bearer).status_code == 401
    monkeypatch.undo()
    assert asyncio.run(clients.find(world.store, done["client_id"])) is None
    assert world.http.request("GET", url, headers=bearer).status_code == 401


def signed_out_at(moment: str, world: World, patch: pytest.MonkeyPatch, names: tuple[str, ...]) -> list[str]:
    """End the session just before the first step of the store that is named ``moment``.  Returns the steps, as they are made."""
    values, steps, cookie = world.store.key_values, list[str](), world.http.cookies["session"]

    def watched(name: str, kept: Any) -> Any:
        async def step(kind: str, key: str, *rest: Any) -> Any:
            steps.append(f"{name} {kind}")
            if steps[-1] == moment and steps.count(moment) == 1:
                await sessions.end(world.smart, cookie)
            return await kept(kind, key, *rest)

        return step

    for name in names:
        patch.setattr(values, name, watched(name, getattr(values, name)))
    return steps


@pytest.mark.parametrize("scope", ["online_access", "offline_access", ""])
@pytest.mark.parametrize("moment", ["put_if_absent spent-code", "put access", "pop code", "never"])
def test_revocation_race_code_exchange_does_not_outlive_sign_out(
    world: World, monkeypatch: pytest.MonkeyPatch, moment: str, scope: str
) -> None:
    code = world.code(scope=f"launch/patient patient/*.rs {scope}".strip())
    steps = signed_out_at(moment, world, monkeypatch, ("get", "put_if_absent", "put", "pop"))
    answer = world.exchange(code)
    assert moment in (*steps, "never")
    monkeypatch.undo()
    if moment == "never":  # the control
        assert world.principal(answer.json()["access_token"])
    else:
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert asyncio.run(token_grants.active_grants(world.store, world.clock())) == ()


@pytest.mark.parametrize("moment", ["get session", "replace_value session-seen", "never"])
def test_revocation_race_use_of_a_page_does_not_restore_the_session(world: World, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    token = world.tokens(scope="launch/patient patient/*.rs online_access")["access_token"]
    cookie = world.http.cookies["session"]
    world.clock.forward(2 * MINUTE)  # use is noted once a minute
    steps = signed_out_at(moment, world, monkeypatch, ("get", "replace_value"))
    asyncio.run(sessions.current(world.smart, cookie))
    assert {"get session", "replace_value session-seen"} <= set(steps) or moment == "get session"
    monkeypatch.undo()
    assert (asyncio.run(sessions.current(world.smart, cookie)) is None) == (moment != "never")
    assert (world.principal(token) is None) == (moment != "never")


@pytest.mark.parametrize("change", ["password", "relation"])
def test_revocation_race_update_does_not_restore_closed_account(world: World, change: str) -> None:
    put, closing = world.store.key_values.put, []

    async def late(kind: str, *rest: Any) -> None:
        if kind == "user" and not closing:
            closing.append(asyncio.create_task(users.remove(world.store, "parent-a", world.clock())))
            await let_others_run()
        await put(kind, *rest)

    async def raced() -> None:
        user = await users.find(world.store, "parent-a")
        assert user is not None
        world.store.key_values.put = late  # type: ignore[method-assign]
        if change == "password":
            await users.save_password_hash(world.store, user, "hashed", world.clock())
        else:
            await users.link(world.store, "parent-a", "another")
        assert await closing[0]

    asyncio.run(raced())
    assert asyncio.run(users.find(world.store, "parent-a")) is None
