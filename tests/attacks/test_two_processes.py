"""Parallel requests at two server processes on one store: refreshes get the same tokens, and guesses are counted together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.smart.accounts import sessions, users
from fhir_server.smart.core.context import SmartContext, digest, new_secret
from fhir_server.smart.core.persons import Person, RecordChoice
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.smart.tokens import tokens
from fhir_server.smart.tokens.failure_limit import MAX_FAILURES
from fhir_server.store import open_store
from tests.mongo.server_processes import ORIGIN, Process
from tests.mongo.shared_mongod import fresh_url
from tests.seeded import seeded
from tests.served import NOON, micros
from tests.waiting import HANG

ROUNDS, TABS = 6, 8
SCOPE = "patient/*.rs offline_access"
Pair = tuple[str, tuple[Process, Process]]


@pytest.fixture(scope="module", params=["sqlite", "mongodb"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Shared: each test has its own tokens and sessions, and only one of them guesses."""
    path = tmp_path_factory.mktemp("store") / "fhir.sqlite"
    with started(fresh_url() if request.param == "mongodb" else f"sqlite:///{path}") as pair:
        yield pair


@contextmanager
def started(url: str, fault: str = "") -> Iterator[Pair]:
    """The URL of a store, and two server processes on it.  ``fault`` is run in each process first."""
    seeded(url, origin=ORIGIN).close()
    processes = Process(url, fault), Process(url, fault)
    try:
        for process in processes:
            process.await_answer()
        yield url, processes
    finally:
        for process in processes:
            process.stop()


async def granted(url: str, count: int) -> list[str]:
    """New refresh tokens of the demo's public app."""
    store, now = open_store(url), micros(NOON)
    grants = [TokenGrant("demo-public", SCOPE, new_secret(), "adult", "adult") for _ in range(count)]
    made = [(await tokens.issue(store, grant, now, refresh=SCOPE)).refresh for grant in grants]
    await store.close()
    return [token for token in made if token]


def at(pair: Pair, number: int) -> str:
    return pair[1][number % 2].address


async def refreshed(client: httpx.AsyncClient, pair: Pair, token: str) -> list[httpx.Response]:
    """The answers to parallel refreshes, half of them at each process."""
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "demo-public"}
    return await asyncio.gather(*(client.post(f"{at(pair, n)}/oauth/token", data=form) for n in range(TABS)))


async def read(client: httpx.AsyncClient, pair: Pair, token: str) -> list[int]:
    """The status of a read at each process with an access token."""
    bearer = {"Authorization": f"Bearer {token}"}
    return [(await client.get(f"{at(pair, n)}/fhir/Patient/adult", headers=bearer)).status_code for n in range(2)]


def test_parallel_refreshes_at_two_processes_get_the_same_tokens(pair: Pair) -> None:
    async def job() -> None:
        async with httpx.AsyncClient(timeout=HANG, limits=httpx.Limits(max_connections=TABS)) as client:
            for token in await granted(pair[0], ROUNDS):
                used = [token]
                for _ in range(2):  # the tokens of the grace are as good as others
                    answers = await refreshed(client, pair, used[-1])
                    assert [answer.status_code for answer in answers] == [200] * TABS
                    bodies: list[Any] = [answer.json() for answer in answers]
                    assert len({(body["access_token"], body["refresh_token"]) for body in bodies}) == 1
                    assert await read(client, pair, bodies[0]["access_token"]) == [200, 200]
                    used.append(bodies[0]["refresh_token"])
                answers = await refreshed(client, pair, token)  # its successor was used
                assert [answer.status_code for answer in answers] == [400] * TABS
                assert await read(client, pair, bodies[0]["access_token"]) == [401, 401]

    asyncio.run(job())


def test_race_of_refreshes_detects_a_missing_grace(tmp_path: Path) -> None:
    fault = "import os; os.environ['FHIR_SERVER_REFRESH_GRACE_SECONDS'] = '0'"

    async def job(pair: Pair) -> None:
        async with httpx.AsyncClient(timeout=HANG, limits=httpx.Limits(max_connections=TABS)) as client:
            for token in await granted(pair[0], ROUNDS):
                answers = await refreshed(client, pair, token)
                assert [answer.status_code for answer in answers].count(200) == 1
                assert await read(client, pair, next(body for a in answers if (body := a.json().get("access_token")))) == [401, 401]

    with started(f"sqlite:///{tmp_path / 'fhir.sqlite'}", fault) as pair:
        asyncio.run(job(pair))


def test_revocation_at_one_process_wins_over_refreshes_at_both(pair: Pair) -> None:
    async def job() -> None:
        async with httpx.AsyncClient(timeout=HANG, limits=httpx.Limits(max_connections=TABS + 1)) as client:
            for token in await granted(pair[0], ROUNDS):
                revoking = client.post(f"{at(pair, 0)}/oauth/revoke", data={"token": token, "client_id": "demo-public"})
                ended, answers = await asyncio.gather(revoking, refreshed(client, pair, token))
                assert ended.status_code == 200
                assert [answer.status_code for answer in await refreshed(client, pair, token)] == [400] * TABS
                for body in (answer.json() for answer in answers if answer.status_code == 200):
                    assert await read(client, pair, body["access_token"]) == [401, 401]

    asyncio.run(job())


def test_parallel_guesses_at_two_processes_are_counted_together(pair: Pair) -> None:
    async def job() -> None:
        async with httpx.AsyncClient(timeout=HANG, limits=httpx.Limits(max_connections=TABS)) as client:

            async def guess(number: int) -> int:
                url = f"{at(pair, number)}/oauth/introspect"
                return (await client.post(url, data={"token": "x"}, auth=("demo-confidential", f"guess-{number}"))).status_code

            statuses = await asyncio.gather(*(guess(number) for number in range(MAX_FAILURES + 40)))
            assert (statuses.count(401), statuses.count(429)) == (MAX_FAILURES, 40)

    asyncio.run(job())


async def opened(url: str) -> tuple[str, str]:
    """The cookie of a new session, and an access token of ``online_access`` that ends with it."""
    store, now = open_store(url), micros(NOON)
    user = await users.find(store, "adult")
    assert user is not None
    smart = SmartContext(store, ORIGIN, f"{ORIGIN}/fhir", lambda: now, _no_records)
    cookie = await sessions.start(smart, user, authenticated=now)
    scope = "patient/*.rs online_access"
    grant = TokenGrant("demo-public", scope, new_secret(), "adult", "adult", session=digest(cookie))
    token = (await tokens.issue(store, grant, now, refresh=scope)).access
    await store.close()
    return cookie, token


async def _no_records(person: Person, now: int) -> tuple[RecordChoice, ...]:
    return ()


def test_revocation_at_one_process_by_sign_out_ends_online_access_at_both(pair: Pair) -> None:
    async def job() -> None:
        async with httpx.AsyncClient(timeout=HANG) as client:
            (cookie, token), (_, other) = await opened(pair[0]), await opened(pair[0])
            assert await read(client, pair, token) == await read(client, pair, other) == [200, 200]
            form = {"token": sessions.form_token(cookie)}
            answer = await client.post(f"{at(pair, 0)}/sign-out", data=form, headers={"Cookie": f"session={cookie}"})
            assert answer.headers["location"] == "/signed-out"
            assert await read(client, pair, token) == [401, 401]
            assert await read(client, pair, other) == [200, 200]

    asyncio.run(job())
