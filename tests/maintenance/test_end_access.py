"""``end-access``: after it, whoever has only a token, a code or a session has nothing, in each server process on the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from fhir_server.maintenance import end_access as ending
from fhir_server.maintenance.end_access import ENDED
from fhir_server.smart.clients import clients, initial_access_tokens
from fhir_server.smart.core.context import digest
from fhir_server.smart.tokens import launch, tokens
from fhir_server.smart.tokens.launch import Launch
from fhir_server.store import Store
from tests.maintenance.operator import STORES, Operator, new_operator, teen_record
from tests.operation.running import opened, running, sign_in
from tests.served import NOON, micros

NOW = micros(NOON)
READ = "/fhir/Patient/teen"


@pytest.fixture(params=STORES)
def operator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setattr(ending, "_PAUSE", 0.0)
    made = new_operator(request.param, tmp_path, monkeypatch)
    teen_record(made).close()
    return made


class World:
    """Two server processes on one store, with apps and people signed in."""

    def __init__(self, store: Store, first: httpx.AsyncClient, second: httpx.AsyncClient) -> None:
        self.store, self.servers = store, (first, second)
        self.tokens: dict[str, str] = {}

    async def begin(self) -> None:
        issue = tokens.issue_operator_token
        for name, client, scope, user, patient in (
            ("parent-app", "demo-public", "patient/*.rs", "parent-a", "teen"),
            ("parent-other-app", "demo-confidential", "patient/*.rs", "parent-a", "teen"),
            ("clinician-app", "demo-public", "patient/*.rs", "privacy-officer", "teen"),
            ("backend", "demo-backend", "system/*.rs", None, None),
        ):
            self.tokens[name] = await issue(self.store, client, scope, NOW, username=user, patient=patient)
        for number, server in enumerate(self.servers):
            assert (await sign_in(server, ("parent-a", "adult")[number])).status_code == 303

    async def open_tokens(self) -> set[str]:
        """The tokens that are answered; each server gives the same answer."""
        found = []
        for server in self.servers:
            shown = {name: {"Authorization": f"Bearer {text}", "Accept": "application/json"} for name, text in self.tokens.items()}
            statuses = {name: (await server.get(READ, headers=headers)).status_code for name, headers in shown.items()}
            assert set(statuses.values()) <= {200, 404, 401}, statuses
            found.append({name for name, status in statuses.items() if status != 401})
        assert found[0] == found[1]
        return found[0]

    async def signed_in(self) -> list[bool]:
        return ["Sign out" in (await server.get("/")).text for server in self.servers]


def world(operator: Operator, job: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(operator.url) as store, running(operator.url) as first, running(operator.url) as second:
            made = World(store, first, second)
            await made.begin()
            assert await made.open_tokens() == set(made.tokens) and await made.signed_in() == [True, True], "the control"
            await job(made)

    asyncio.run(run())


async def command(operator: Operator, *options: str) -> str:
    return await asyncio.to_thread(operator.must, "end-access", *options, "--reason", "a stolen laptop")


def test_all_access_of_everyone_ends_at_once(operator: Operator) -> None:
    async def job(made: World) -> None:
        handle = await launch.create_launch(made.store, Launch("demo-public", "clinician", "teen"), NOW)
        invitation = await initial_access_tokens.issue(made.store, NOW)
        app = msgspec.structs.replace(await clients.find(made.store, "demo-public"), registration_token_hash=digest("manager"))  # type: ignore[type-var]
        await clients.save(made.store, app)
        told = await command(operator, "--everyone")
        for count, what in ((4, "access tokens"), (2, "sessions"), (1, "EHR launches"), (1, "registration tokens")):
            assert f"{count} {what} ended.\n" in told
        assert "1 management tokens of registered apps ended." in told
        assert await made.open_tokens() == set() and await made.signed_in() == [False, False]
        assert await launch.find(made.store, handle, NOW) is None
        assert not await initial_access_tokens.is_valid(made.store, invitation, NOW)
        changed = await clients.find(made.store, "demo-public")
        assert changed is not None and changed.registration_token_hash == ""
        for kind in ENDED:
            assert not await made.store.key_values.list_all(kind, 0), kind
        assert (await sign_in(made.servers[0], "adult")).status_code == 303, "who knows the password signs in again"

    world(operator, job)
    (line,) = [line for line in operator.must("journal").splitlines() if '"end-all-access"' in line]
    (detail,) = [entity["detail"] for entity in json.loads(line.partition("\t")[2])["event"]["entity"] if "detail" in entity]
    assert {"type": "access tokens", "valueString": "4"} in detail and {"type": "reason", "valueString": "a stolen laptop"} in detail


@pytest.mark.parametrize(
    ("options", "left", "signed_in"),
    [
        (("--user", "Parent-A"), {"clinician-app", "backend"}, [False, True]),
        (("--client", "demo-public"), {"parent-other-app", "backend"}, [True, True]),
        (("--client", "demo-backend"), {"parent-app", "parent-other-app", "clinician-app"}, [True, True]),
        (("--user", "parent-a", "--client", "demo-public"), {"parent-other-app", "clinician-app", "backend"}, [True, True]),
    ],
    ids=["person", "app", "system", "app-of-person"],
)
def test_access_of_one_ends_and_others_keep_theirs(
    operator: Operator, options: tuple[str, ...], left: set[str], signed_in: list[bool]
) -> None:
    async def job(made: World) -> None:
        await command(operator, *options)
        assert await made.open_tokens() == left and await made.signed_in() == signed_in

    world(operator, job)


def test_what_a_request_stored_meanwhile_ends_too(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that had begun stores its token after the first pass; the second one finds it."""
    once = ending._end_once
    late: list[str] = []

    async def overtaken(store: Store, whose: ending.Ending, now: int) -> object:
        ended = await once(store, whose, now)
        if not late:
            late.append(await tokens.issue_operator_token(store, "demo-public", "patient/*.rs", NOW, username="parent-a", patient="teen"))
        return ended

    monkeypatch.setattr(ending, "_end_once", overtaken)

    async def job(made: World) -> None:
        await command(operator, "--client", "demo-public")
        made.tokens["late"] = late[0]
        assert "late" not in await made.open_tokens()

    world(operator, job)


def test_unknown_or_contradicting_targets_end_nothing(operator: Operator) -> None:
    for options in (("--user", "nobody"), ("--client", "nothing"), (), ("--everyone", "--user", "adult")):
        refused = operator.run("end-access", *options, "--reason", "x")
        assert refused.exit_code in (1, 2), refused.output
