"""All requests together work in a bounded memory: who needs much waits for it, or is refused, and others go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from fhir_server import allocator
from fhir_server.allocator import FreeMemory
from fhir_server.api import FhirApi
from fhir_server.app import request_limits
from fhir_server.bodies import BodyLimit, read_body
from fhir_server.budget import Budget, BudgetLimits
from fhir_server.errors import Problem
from fhir_server.memory import Held, WorkingMemory
from tests.seeded import seeded
from tests.served import call

LIMIT = BodyLimit(10_000_000, "a test")
PART = b"x" * 100_000


def spending(held: Held) -> Budget:
    return Budget(BudgetLimits(), held=held)


def parts_of(count: int, end: asyncio.Event | None = None, size: int = 100_000) -> Any:
    """Receives a body in parts, whose end comes with an event."""
    left = iter(range(count))

    async def receive() -> dict[str, Any]:
        if next(left, None) is None:
            if end is not None:
                await end.wait()
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": PART[:size], "more_body": True}

    return receive


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def test_bodies_on_their_way_have_a_bounded_memory() -> None:
    """Together they have half of it, those of one client a quarter, small ones need none, and it comes back with the ends of requests."""
    memory = WorkingMemory(2_000_000)
    clients = {name: Held(memory) for name in "abc"}

    async def main() -> None:
        more, budgets = asyncio.Event(), list[Budget]()

        def start(client: str, parts: int, size: int = 100_000) -> asyncio.Task[tuple[bytes, bool]]:
            budgets.append(spending(clients[client]))
            return asyncio.create_task(read_body(parts_of(parts, more, size), {}, LIMIT, budgets[-1]))

        reading = [start("a", 4), start("b", 5)]
        await settle()
        for client, parts in (("a", 2), ("c", 2)):
            with pytest.raises(Problem) as refused:
                await start(client, parts)
            assert refused.value.kind == "busy"
            budgets.pop().release()
        reading += [start("a", 1), start("c", 1, 60_000)]
        await settle()
        more.set()
        await asyncio.gather(*reading)
        assert memory.used == memory.bodies == 1_000_000  # until their requests end
        for one in budgets:
            one.release()
        assert memory.used == memory.bodies == 0 and all(held.is_nothing for held in clients.values())

    asyncio.run(main())


def test_a_large_body_is_read_when_there_is_room() -> None:
    memory = WorkingMemory(2_000_000)

    async def main() -> None:
        first, second = spending(Held(memory)), spending(Held(memory))
        await read_body(parts_of(9), {"content-length": "900000"}, LIMIT, first)
        receive, begun = parts_of(2), []

        async def noted() -> dict[str, Any]:
            begun.append(1)
            message: dict[str, Any] = await receive()
            return message

        waiting = asyncio.create_task(read_body(noted, {"content-length": "200000"}, LIMIT, second))
        await settle()
        assert not begun  # nothing of it is read meanwhile
        first.release()
        assert len((await waiting)[0]) == 200_000
        second.release()
        assert memory.used == 0

    asyncio.run(main())


def test_a_body_for_which_there_is_no_room_in_time_is_refused() -> None:
    memory = WorkingMemory(2_000_000, seconds=0)

    async def main() -> None:
        await read_body(parts_of(9), {}, LIMIT, first := spending(Held(memory)))
        with pytest.raises(Problem) as refused:
            await read_body(parts_of(2), {"content-length": "200000"}, LIMIT, spending(Held(memory)))
        assert (refused.value.kind, refused.value.status) == ("busy", 503) and refused.value.retry_after
        first.release()
        assert not memory._waiting

    asyncio.run(main())


def test_the_only_large_body_fits_whatever_the_limit_is() -> None:
    memory = WorkingMemory(1000)

    async def main() -> None:
        await read_body(parts_of(1, size=90_000), {"content-length": "90000"}, LIMIT, one := spending(Held(memory)))
        one.release()

    asyncio.run(main())
    assert memory.used == 0


def test_who_waits_for_room_has_it_in_order_and_who_gives_up_takes_none() -> None:
    memory, order = WorkingMemory(4000), list[str]()

    async def main() -> None:
        holds = Held(memory)
        holds.take_for_body(1)
        holds.take_for_body(999)

        async def wait(name: str) -> None:
            held = Held(memory)
            await held.wait_for_body(2000)
            order.append(name)
            held.take_for_body(1)

        tasks = [asyncio.create_task(wait(name)) for name in "abc"]
        await settle()
        tasks[0].cancel()
        await settle()
        holds.give_back_body(1000)
        await settle()
        assert order == ["b"] and len(memory._waiting) == 1
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not memory._waiting

    asyncio.run(main())


def test_without_room_in_the_process_an_answer_is_refused_and_takes_nothing() -> None:
    memory = WorkingMemory(1000)
    one, other = spending(Held(memory)), spending(Held(memory))
    one.take(1, 900)
    with pytest.raises(Problem) as refused:
        other.take(1, 200)
    assert (refused.value.kind, memory.used) == ("busy", 900)
    one.release()
    other.take(1, 200)
    other.release()
    assert memory.used == 0


@pytest.mark.parametrize("who", ["same", "other"])
def test_while_half_is_used_a_client_waits_before_its_next_request(who: str) -> None:
    """A client that holds nothing begins at once; one whose answers are on their way begins when they have been sent."""
    served = seeded()
    token, other = served.token(), served.app_token("adult", "adult")
    limits = request_limits(served.settings)._replace(memory=100_000)
    api = FhirApi(served.parts.service, served.parts.clock, served.parts.auditor, limits, {})
    headers: Callable[[str], dict[str, str]] = lambda token: {"authorization": f"Bearer {token}"}  # noqa: E731

    async def main() -> None:
        for one in (token, other):
            assert (await call(api, "GET", "/Patient/adult", b"", headers(one), b"")).status == 200
        held = api._turns.line("demo-backend").held
        held.take(60_000)
        asking = asyncio.create_task(call(api, "GET", "/Patient/adult", b"", headers(token if who == "same" else other), b""))
        if who == "other":
            assert (await asking).status == 200
            held.give_back(60_000)
            return
        await settle()
        assert not asking.done() and len(api._memory._waiting) == 1
        held.give_back(60_000)
        assert (await asking).status == 200 and api._memory.used == 0

    served.run(main())
    served.close()


def test_a_request_that_waited_too_long_is_answered_with_when_to_come_again() -> None:
    served = seeded()
    token = served.token()
    assert served.get(token, "Patient/adult").status == 200
    served.api._memory._seconds = 0
    served.api._memory.total = 100_000
    held = served.api._turns.line("demo-backend").held
    held.take(60_000)
    answer = served.get(token, "Patient/adult")
    assert answer.status == 503 and answer.headers["retry-after"]
    assert json.loads(answer.body)["resourceType"] == "OperationOutcome"
    held.give_back(60_000)
    assert served.get(token, "Patient/adult").status == 200
    served.close()


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_every_request_gives_back_what_it_held(kind: str) -> None:
    served = seeded()
    token = served.token()
    create = {"request": {"method": "POST", "url": "Basic"}, "resource": {"resourceType": "Basic", "code": {"text": "x" * 40_000}}}
    bad = {"request": {"method": "POST", "url": "Basic"}, "resource": {"resourceType": "Basic", "code": 1}}
    for entries in ([create] * 4, [create] * 4 + [bad]):
        served.request(token, "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": entries})
    served.request(token, "POST", "Basic", body={"resourceType": "Basic", "code": {"text": "x" * 400_000}})
    for path in ("Basic", "Patient/adult/$everything", "Patient/nobody", "Basic?_count=x"):
        served.get(token, path)
    memory = served.api._memory
    assert memory.used == memory.bodies == 0
    assert all(line.held.is_nothing for line in served.api._turns._lines.values())
    served.close()


def test_free_memory_goes_back_once_after_large_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []
    monkeypatch.setattr(allocator, "_PAUSE", 0.0)
    monkeypatch.setattr(allocator, "give_back_memory", lambda: times.append(1))

    async def main() -> None:
        free = FreeMemory()
        free.after(1000)
        assert not free._is_due
        for _ in range(5):
            free.after(10_000_000)
        while not times:
            await asyncio.sleep(0)
        free.after(10_000_000)
        while len(times) < 2:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert len(times) == 2
    allocator.give_back_memory()
