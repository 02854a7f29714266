"""Clients are served in turn.  The tests count turns, not time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fhir_server import turns
from fhir_server.turns import KnownClients, Turns
from tests.seeded import seeded
from tests.served import call


@pytest.fixture(autouse=True)
def _one_turn_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when every step is long, so that the order does not depend on the speed of the machine."""
    monkeypatch.setattr(turns, "_LONG", -1.0)
    monkeypatch.setattr(turns, "_MOST_AT_ONCE", 1)


async def served(turns_: Turns, client: str, order: list[str], *, steps: int = 1) -> None:
    line = turns_.line(client)
    await turns_.begin(line)
    try:
        order.append(client)
        for _ in range(steps - 1):
            await line.go_on()
            order.append(client)
    finally:
        turns_.end(line)


def is_idle(turns_: Turns) -> bool:
    return not turns_._waiting and not any(line.begun or line.new or line.paused for line in turns_._lines.values())


def test_one_request_of_another_client_waits_for_a_few_steps_only() -> None:
    order: list[str] = []

    async def main() -> None:
        one = Turns(16)
        crowd = [asyncio.create_task(served(one, "crowd", order)) for _ in range(64)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        before = len(order)
        await served(one, "other", order)
        assert order.index("other") - before <= 2
        await asyncio.gather(*crowd)

    asyncio.run(main())
    assert len(order) == 65


def test_clients_that_wait_have_their_turns_one_after_the_other() -> None:
    order: list[str] = []

    async def main() -> None:
        one = Turns(16)
        await asyncio.gather(*[served(one, client, order) for client in "a" * 12 + "b" * 6 + "c" * 6])

    asyncio.run(main())
    assert sorted(order) == sorted("a" * 12 + "b" * 6 + "c" * 6)
    assert all({*order[start : start + 3]} == {"a", "b", "c"} for start in range(3, 15, 3)), order


def test_a_long_request_gives_way_after_each_step() -> None:
    order: list[str] = []

    async def main() -> None:
        one = Turns(16)
        long = asyncio.create_task(served(one, "long", order, steps=50))
        await asyncio.sleep(0)
        await asyncio.gather(*[served(one, "other", order) for _ in range(10)], long)

    asyncio.run(main())
    assert order[-1] == "long" and max(place for place, client in enumerate(order) if client == "other") < 25


def test_no_more_requests_of_a_client_are_served_than_the_limit() -> None:
    running = most = 0

    async def main() -> None:
        nonlocal most
        one = Turns(3)
        release = asyncio.Event()

        async def held(client: str) -> None:
            nonlocal running, most
            await one.begin(one.line(client))
            running += 1
            most = max(most, running)
            await release.wait()
            running -= 1
            one.end(one.line(client))

        tasks = [asyncio.create_task(held("a")) for _ in range(20)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert running == 3
        order: list[str] = []
        await served(one, "b", order)  # others are not held up
        release.set()
        await asyncio.gather(*tasks)
        assert most == 3 and is_idle(one)

    asyncio.run(main())


@pytest.mark.parametrize("rounds", range(6))
def test_a_request_that_is_given_up_leaves_its_place(rounds: int) -> None:
    async def main() -> None:
        one = Turns(1)
        order: list[str] = []
        await one.begin(one.line("a"))
        tasks = [asyncio.create_task(served(one, "a", order, steps=3)) for _ in range(3)]
        await asyncio.sleep(0)
        one.end(one.line("a"))
        for _ in range(rounds):
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order.count("a") >= 6 and is_idle(one)

    asyncio.run(main())


def test_the_first_requests_begin_at_once() -> None:
    async def main() -> None:
        one = Turns(16)
        one._worked = -2.0  # nobody has worked for long
        waits = one.begin(one.line("a")).send
        with pytest.raises(StopIteration):
            waits(None)
        one.end(one.line("a"))

    asyncio.run(main())


def test_lines_of_clients_that_left_are_forgotten() -> None:
    async def main() -> None:
        one = Turns(16, clients=3)
        await one.begin(one.line("a"))
        one.line("b").held.size = 5
        for number in range(50):
            await served(one, f"c{number}", [])
            assert len(one._lines) <= 5 and {"a", "b"} <= one._lines.keys()

    asyncio.run(main())


def test_known_clients_are_bounded() -> None:
    known = KnownClients(2)
    for name in "abc":
        known.put(name.encode(), name)
    assert [known.get(name.encode()) for name in "abc"] == [None, "b", "c"]
    known.put(b"c", "d")
    assert known.get(b"c") == "c"


def test_requests_of_one_person_share_turns_whatever_the_token() -> None:
    """Two tokens of one person are one client; another person is another."""
    server = seeded()
    began: list[Any] = []
    right = server.api._turns.line

    def line(client: str) -> Any:
        began.append(client)
        return right(client)

    server.api._turns.line = line  # type: ignore[method-assign]
    tokens = [server.app_token("adult", "adult"), server.app_token("adult", "adult"), server.app_token("parent-a", "teen"), server.token()]
    for _ in range(2):
        for token in tokens:
            assert server.get(token, "Patient").status == 200
    assert began[:4] == ["192.0.2.7"] * 4 and began[4:] == ["adult", "adult", "parent-a", "demo-backend"]
    assert server.get("nope", "Patient").status == 401 and began[-1] == "192.0.2.7"
    server.close()


def test_a_batch_gives_way_to_each_request_of_others() -> None:
    server = seeded()
    token, other = server.token(), server.app_token("adult", "adult")
    assert server.get(token, "Patient/adult").status == server.get(other, "Patient/adult").status == 200
    done: list[str] = []

    async def ask(name: str, method: str, path: str, token: str, body: bytes = b"") -> None:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/fhir+json"}
        assert (await call(server.api, method, path, b"", headers, body)).status == 200
        done.append(name)

    async def main() -> None:
        entries = [{"request": {"method": "GET", "url": "Patient/adult"}}] * 200
        body = json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries}).encode()
        batch = asyncio.create_task(ask("batch", "POST", "/", token, body))
        await asyncio.sleep(0)
        for _ in range(20):
            await ask("read", "GET", "/Patient/adult", other)
        await batch

    server.run(main())
    assert done == ["read"] * 20 + ["batch"]
    server.close()
