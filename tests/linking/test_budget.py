"""What one partner is asked: calls at once and a minute, for all viewers and all processes, on every store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from fhir_server.linking import http
from fhir_server.linking.context import BusyError, LinkingContext
from fhir_server.linking.organizations import Organization
from fhir_server.smart.core.context import MINUTE, SECOND, SmartContext
from fhir_server.store import Store
from tests.smart.environment import BASE, ORIGIN, Clock, records
from tests.store.stores import SCHEMES, empty_store

NORTH = Organization("north", "North", "https://north.example/fhir", "us", per_minute=20, at_once=3)
SOUTH = msgspec.structs.replace(NORTH, id="south")
Story = Callable[[Store], Awaitable[Any]]


@pytest.fixture(params=SCHEMES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], Any]:
    """Run a story on an empty store of each kind."""

    def run(story: Story) -> Any:
        async def whole() -> Any:
            store = empty_store(request.param, tmp_path)
            try:
                return await story(store)
            finally:
                await store.close()

        return asyncio.run(whole())

    return run


class Partner(httpx.AsyncBaseTransport):
    """Notes how many calls are under way together. The first ones are answered once there are ``together``."""

    def __init__(self, status: int = 200, together: int = 1, **headers: str) -> None:
        self.now = self.highest = self.calls = 0
        self.together, self.full = together, asyncio.Event()
        self.status, self.headers = status, headers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        self.now += 1
        self.highest = max(self.highest, self.now)
        if self.now == self.together:
            self.full.set()
        await self.full.wait()
        for _ in range(50):  # turns of the loop in which others could begin
            await asyncio.sleep(0)
        self.now -= 1
        return httpx.Response(self.status, headers=self.headers, stream=httpx.ByteStream(b"{}"))


def processes(store: Store, clock: Clock, partner: Partner) -> list[LinkingContext]:
    """Two server processes on one store."""
    store.key_values.now = clock
    smart = SmartContext(store, ORIGIN, BASE, clock, records)
    return [LinkingContext(smart, partner), LinkingContext(smart, partner)]


async def ask(context: LinkingContext, organization: Organization = NORTH) -> str:
    try:
        await http.get(context, organization, f"{organization.base}/Observation")
    except BusyError as problem:
        return str(problem)
    return ""


def test_calls_at_once_are_shared_by_all_processes(run: Callable[[Story], Any]) -> None:
    partner, clock = Partner(together=NORTH.at_once), Clock()

    async def story(store: Store) -> list[str]:
        both = processes(store, clock, partner)
        return await asyncio.gather(*(ask(both[number % 2]) for number in range(12)))

    assert run(story) == [""] * 12
    assert (partner.calls, partner.now) == (12, 0)
    assert partner.highest == NORTH.at_once


def test_calls_a_minute_are_shared_by_all_processes(run: Callable[[Story], Any]) -> None:
    partner, clock = Partner(), Clock()
    busy = "We already ask the other health system as often as we may. Try again in about a minute."

    async def story(store: Store) -> None:
        both = processes(store, clock, partner)
        assert [await ask(both[number % 2]) for number in range(22)] == [""] * 20 + [busy] * 2
        assert await ask(both[0], SOUTH) == ""  # another partner has its own
        clock.forward(MINUTE)
        assert await ask(both[1]) == ""

    run(story)
    assert partner.calls == 22


def test_request_to_wait_holds_for_all_processes(run: Callable[[Story], Any]) -> None:
    partner, clock = Partner(503, **{"retry-after": "90"}), Clock()

    async def story(store: Store) -> None:
        both = processes(store, clock, partner)
        assert await ask(both[0]) == "The other health system asked us to wait. Try again in about 2 minutes."
        clock.forward(31 * SECOND)
        assert await ask(both[1]) == "The other health system asked us to wait. Try again in about a minute."
        assert partner.calls == 1
        clock.forward(59 * SECOND)
        await ask(both[1])
        assert partner.calls == 2

    run(story)


def test_place_of_a_killed_process_is_free_after_a_minute(run: Callable[[Story], Any]) -> None:
    clock = Clock()

    async def story(store: Store) -> None:
        context = processes(store, clock, Partner())[0]
        for number in range(NORTH.at_once):
            await store.key_values.put("link-place", f"north {number}", b"killed", clock() + MINUTE)
        assert "as often as we may" in await ask(replace(context, deadline=0))
        clock.forward(MINUTE)
        assert await ask(context) == ""

    run(story)
