"""No page and no command reads other people's grants, sessions or codes: it is counted what the store hands out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fhir_server.smart.accounts import sessions, users
from fhir_server.smart.clients import clients
from fhir_server.smart.core import grant_index, session_ends, token_grants
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.smart.tokens import tokens
from fhir_server.store import Store
from fhir_server.store.memory_key_values import MemoryKeyValues
from tests.portal.environment import Form, World

OTHERS = 20_000
FEW = 20  # rows of the person's own


@pytest.fixture(scope="module")
def crowded() -> World:
    """A server with the grants and sessions of many others."""
    world = World()
    asyncio.run(_plant(world))
    return world


async def _plant(world: World) -> None:
    now, values = world.clock(), world.store.key_values
    await grant_index.of_user(world.store, "nobody", now)
    client = await clients.find(world.store, "demo-public")
    assert client is not None
    await clients.save(world.store, clients.Client("small-app", "Small app", "app", "none", "patient/*.rs", client.redirect_uris))
    for number in range(OTHERS):
        grant = TokenGrant("demo-public", "patient/*.rs", f"family {number}", f"other{number}", "p")
        await tokens.issue(world.store, grant, now, refresh=grant.scope)
        await values.put("session", f"s{number}", b'{"username":"o","started":1}', 2**62, session_ends.account_family(f"other{number}"))


@pytest.fixture
def handed_out(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of records that listings of the store returned."""
    numbers: list[int] = []

    def counted(name: str) -> None:
        listing = getattr(MemoryKeyValues, name)

        async def count(values: MemoryKeyValues, kind: str, *rest: object) -> object:
            found = await listing(values, kind, *rest)
            if kind not in ("client", "user"):
                numbers.append(len(found))
            return found

        monkeypatch.setattr(MemoryKeyValues, name, count)

    plain = MemoryKeyValues.list_all

    async def of_family(values: MemoryKeyValues, kind: str, family: str, now: int) -> tuple[tuple[str, bytes], ...]:
        records = values._store.state.key_values
        return tuple([(key, value) for key, value in await plain(values, kind, now) if records[kind, key][2] == family])

    monkeypatch.setattr(MemoryKeyValues, "list_family", of_family)  # one that does not call the counted listing
    counted("list_all")
    counted("list_family")
    return numbers


def _apps(world: World) -> None:
    world.token("adult", "adult", "own family")
    adult = world.signed_in("adult")
    assert "Demo phone app" in adult.get("/apps").text
    assert adult.post("/apps", **Form(adult.get("/apps").text, "/apps").forms[0]).status_code == 303


def _account(world: World) -> None:
    assert world.signed_in("adult").get("/account").status_code == 200


def _closing(world: World) -> None:
    token = world.token("newly-adult", "newly-adult", "closed family")
    assert asyncio.run(users.remove(world.store, "newly-adult", world.clock()))
    assert world.status(token, "Patient/newly-adult") == 401


def _removal(world: World) -> None:
    grant = TokenGrant("small-app", "patient/*.rs", "removed family", "adult", "adult")
    token = asyncio.run(tokens.issue(world.store, grant, world.clock())).access
    assert asyncio.run(clients.remove(world.store, "small-app", world.clock()))
    assert world.status(token) == 401


@pytest.mark.parametrize("act", [_apps, _account, _closing, _removal])
def test_nobody_reads_records_of_others(crowded: World, handed_out: list[int], act: Callable[[World], None]) -> None:
    act(crowded)
    assert handed_out and max(handed_out) <= FEW


def test_count_shows_a_page_that_reads_everybody(crowded: World, handed_out: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    async def of_all(store: Store, username: str, now: int) -> tuple[TokenGrant, ...]:
        return tuple([grant for grant in await token_grants.active_grants(store, now) if grant.username == username])

    monkeypatch.setattr(grant_index, "of_user", of_all)
    _apps(crowded)
    assert max(handed_out) > OTHERS


def test_grants_of_an_earlier_version_are_found(world: World) -> None:
    token = world.token("adult", "adult")
    records = world.store.key_values._store.state.key_values  # type: ignore[attr-defined]
    for kind, key in [name for name in records if name[0].startswith("grant")]:
        del records[kind, key]
    assert [grant.client_id for grant in asyncio.run(grant_index.of_user(world.store, "adult", world.clock()))] == ["demo-public"]
    assert asyncio.run(users.remove(world.store, "adult", world.clock()))
    assert world.status(token) == 401


def test_session_of_another_is_not_listed(world: World) -> None:
    world.signed_in("proxy-full")
    assert asyncio.run(sessions.list_all(world.made.smart, world.account("adult"))) == []
