"""At least once and in order: failures, pauses, restarts, several servers, slow endpoints."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.budget import BudgetLimits
from fhir_server.clock import SECOND
from fhir_server.smart.core.encryption import InvalidToken
from fhir_server.subscriptions import delivery, dispatcher
from fhir_server.subscriptions.dispatcher import LEASE
from fhir_server.web.public_fetch import Network
from fhir_server.writing.write_times import LATEST_DELAY, WritesInProgress, write_time
from tests.seeded import seeded
from tests.served import Served, micros
from tests.subscriptions.environment import Subscribing, by_criteria, by_topic, lab, value

DAY = 24 * 3600


def test_a_failed_notification_is_sent_again_after_growing_pauses(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    any_store.active(feed, by_topic())
    id = any_store.write(lab())
    any_store.endpoint.statuses = [500, 0, 404]
    attempts = []
    for seconds in (10, 4, 20, 20, 60, 60, 60):
        any_store.look(seconds)
        attempts.append(len(any_store.endpoint.bundles()))
    assert attempts == [1, 1, 2, 2, 3, 3, 4]
    assert [name for _, name in any_store.endpoint.events()] == [f"Observation/{id}"] * 4
    assert [number for number, _ in any_store.endpoint.events()] == [1] * 4


def test_after_failures_the_status_is_error_and_after_success_active_again(world: Subscribing) -> None:
    feed = world.served.token()
    id = world.active(feed, by_topic())
    name = world.write(lab())
    world.endpoint.statuses = [500] * 3
    for _ in range(3):
        world.look(3600)
    found = world.read(world.served.token(), id).json
    assert (found["status"], found["error"]) == ("error", delivery.NOT_ACCEPTED) and name not in found["error"]
    world.look(3600)
    found = world.read(world.served.token(), id).json
    assert found["status"] == "active" and "error" not in found


def test_headers_that_the_secret_key_does_not_open_are_a_failure_that_can_pass(world: Subscribing) -> None:
    id, right = world.active(world.served.token(), by_topic(header=["X-Key: hush"])), world.served.parts

    def opened(_: bytes) -> bytes:
        raise InvalidToken

    world.write(lab())
    world.served.parts = replace(right, service=replace(right.service, opened=opened))
    world.dispatcher, sent = world.new_dispatcher(), len(world.endpoint.requests)
    world.look(3600)
    assert len(world.endpoint.requests) == sent
    world.served.parts = right
    world.dispatcher = world.new_dispatcher()
    world.look(3600)
    assert world.endpoint.requests[-1].headers["x-key"] == "hush" and len(world.endpoint.requests) == sent + 1
    assert world.read(world.served.token(), id).json["status"] == "active"


def test_after_a_day_of_failures_it_is_off_and_the_operator_can_count_it(world: Subscribing) -> None:
    id = world.active(world.served.token(), by_topic())
    world.write(lab())
    world.endpoint.statuses = [500] * 100
    for _ in range(30):
        world.look(3600)
    found = world.read(world.served.token(), id).json
    assert (found["status"], found["error"]) == ("off", delivery.GIVEN_UP)
    sent = len(world.endpoint.requests)
    world.look(DAY)
    assert len(world.endpoint.requests) == sent and world.counts == {"off": 1}


def test_one_that_is_off_can_be_requested_again_and_is_told_of_what_follows(world: Subscribing) -> None:
    feed = world.served.token()
    id = world.active(feed, by_topic())
    body = world.read(feed, id).json
    assert world.served.request(feed, "PUT", f"Subscription/{id}", body=body | {"status": "off"}).json["status"] == "off"
    world.write(lab())
    world.look()
    assert world.endpoint.bundles() == []
    assert world.served.request(feed, "PUT", f"Subscription/{id}", body=body | {"status": "requested"}).json["status"] == "requested"
    later = world.write(lab())
    world.look()
    assert world.endpoint.events() == [(1, f"Observation/{later}")]


def test_an_endpoint_that_refuses_the_handshake_is_told_nothing(world: Subscribing) -> None:
    world.endpoint.statuses = [403] * 50
    id = world.subscribe(world.served.token(), by_topic())
    world.write(lab())
    for _ in range(4):
        world.look(3600)
    assert world.endpoint.bundles() == [] and world.read(world.served.token(), id).json["status"] == "error"
    assert len(world.endpoint.bundles("handshake")) == 4


def test_another_server_continues_where_the_first_one_ended(any_store: Subscribing) -> None:
    any_store.active(any_store.served.token(), by_topic())
    first = any_store.write(lab())
    any_store.look()
    second = any_store.write(lab())
    other = any_store.new_dispatcher()
    any_store.look(10, other)
    assert len(any_store.endpoint.events()) == 1, "while the first one holds the lease, another one delivers nothing"
    any_store.look(LEASE / SECOND + 1, other)
    assert any_store.endpoint.events() == [(1, f"Observation/{first}"), (2, f"Observation/{second}")]
    third = any_store.write(lab())
    any_store.look(10)
    any_store.look(1, other)
    assert any_store.endpoint.events()[2:] == [(3, f"Observation/{third}")]


def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'fhir.sqlite'}"
    before = Subscribing(seeded(url))
    id = before.active(before.served.token(), by_topic())
    written = before.write(lab())
    before.served.close()
    after = Subscribing(Served(url, at="2026-11-21T12:05:00-05:00", seeds=False))
    after.look()
    assert after.endpoint.events() == [(1, f"Observation/{written}")]
    assert after.read(after.served.token(), id).json["status"] == "active"
    after.served.close()


def test_a_slow_endpoint_holds_up_no_other(world: Subscribing) -> None:
    served, feed = world.served, world.served.token()
    world.active(feed, by_topic())
    world.active(served.app_token("adult", "adult"), by_topic("Observation", "id-only", endpoint="https://slow.example/hook"))
    released, told = asyncio.Event(), list[str]()

    async def answer(request: httpx.Request) -> httpx.Response:
        told.append(request.headers["host"])
        if request.headers["host"] == "slow.example":
            await released.wait()
        return httpx.Response(200)

    async def resolve(host: str, port: int) -> tuple[str, ...]:
        return ("93.184.216.34",)

    object.__setattr__(served.parts.smart, "network", Network(resolve, httpx.MockTransport(answer)))

    async def looks() -> None:
        for _ in range(3):
            await world.dispatcher.look()
            for _ in range(200):
                await asyncio.sleep(0)

    world.write(lab("adult"))
    served.at(served.parts.clock() + 10 * SECOND)
    served.run(looks())
    world.write(lab("adult"))
    served.at(served.parts.clock() + 10 * SECOND)
    served.run(looks())
    assert (told.count("app.example"), told.count("slow.example")) == (2, 1)

    async def finish() -> None:
        released.set()
        await world.dispatcher.settle()
        await looks()
        await world.dispatcher.settle()

    served.run(finish())
    assert told.count("slow.example") == 2, "what happened meanwhile is told after it"


def test_a_deleted_subscription_is_told_nothing_more(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    id = any_store.active(feed, by_topic())
    any_store.write(lab())
    assert any_store.served.request(feed, "DELETE", f"Subscription/{id}").status == 204
    any_store.look()
    assert any_store.endpoint.bundles() == [] and any_store.read(feed, id).status == 404


def test_it_ends_at_its_end(world: Subscribing) -> None:
    feed = world.served.token()
    id = world.active(feed, by_topic() | {"end": "2026-11-21T12:01:00-05:00"})
    world.served.at(micros("2026-11-21T12:00:40-05:00"))
    world.write(lab())
    world.look(10)
    assert len(world.endpoint.events()) == 1
    world.write(lab())
    world.look(10)
    assert len(world.endpoint.events()) == 1 and world.read(feed, id).json["status"] == "off"


def test_only_public_addresses_are_called_in_production(world: Subscribing) -> None:
    world.only_public()
    feed = world.served.token()
    world.served.request(feed, "POST", "Subscription", body=by_topic())
    for address in ("127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "100.64.0.1"):
        world.endpoint.address = address
        world.look(3600)
        assert world.endpoint.requests == [], address
    world.endpoint.address = "93.184.216.34"
    world.look(3600)
    assert [value(bundle, "type") for bundle in world.endpoint.bundles("handshake")] == ["handshake"]
    for endpoint in ("http://127.0.0.1/hook", "http://app.example/hook", "https://user:secret@app.example/", "https://app.example/#x"):
        assert world.served.request(world.served.token(), "POST", "Subscription", body=by_topic(endpoint=endpoint)).status == 422


def test_a_redirect_is_not_followed(world: Subscribing) -> None:
    feed = world.served.token()
    world.active(feed, by_topic())
    world.write(lab())
    world.endpoint.statuses = [307]
    world.look(6)
    world.look(4)
    assert len(world.endpoint.bundles()) == 1


def test_a_write_that_takes_long_is_told_when_it_is_stored(any_store: Subscribing) -> None:
    served, feed = any_store.served, any_store.served.token()
    any_store.active(feed, by_topic())
    with served.parts.service.writes.begun(served.parts.clock):
        began = served.parts.clock()
        any_store.look(60)
        any_store.write(lab())
        any_store.look(60)
        assert any_store.endpoint.events() == [], f"a version of {began} may still come"
    any_store.look()
    assert len(any_store.endpoint.events()) == 1


def test_a_long_write_of_another_server_is_waited_for(any_store: Subscribing) -> None:
    parts, feed = any_store.served.parts, any_store.served.token()
    any_store.active(feed, by_topic())
    service = replace(parts.service, writes=WritesInProgress())
    other = replace(parts, service=service).subscribers.dispatcher(lambda counts: None)
    with service.writes.begun(parts.clock):
        any_store.look(3, other)
        any_store.write(lab())
        any_store.look(20, other)
        any_store.look(1)
        assert any_store.endpoint.events() == []
    any_store.look(1, other)
    any_store.look(1)
    assert len(any_store.endpoint.events()) == 1


def test_a_version_is_not_dated_long_before_its_transaction(world: Subscribing) -> None:
    assert write_time(100 * SECOND, 100 * SECOND + LATEST_DELAY) == 100 * SECOND
    assert write_time(100 * SECOND, 160 * SECOND) == 160 * SECOND - LATEST_DELAY
    assert write_time(100 * SECOND, 90 * SECOND) == 100 * SECOND


@pytest.mark.parametrize("kind", ["by criteria", "by topic"])
def test_no_change_costs_no_attempt_but_the_periodic_ones(world: Subscribing, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "crc32", lambda key: 0)  # the id is random, and with it the second of periodic attempts
    monkeypatch.setattr(dispatcher, "_PERIOD", 3600 * SECOND)
    world.active(world.served.token(), by_topic() if kind == "by topic" else by_criteria("Observation?code=718-7"))
    world.look()
    attempts: list[str] = []
    exact = delivery.Delivery.attempt

    async def counted(self: Any, key: str, now: int, horizon: int, *, periodic: bool, **options: Any) -> Any:
        attempts.extend([] if periodic else [key])
        return await exact(self, key, now, horizon, periodic=periodic, **options)

    monkeypatch.setattr(delivery.Delivery, "attempt", counted)
    for _ in range(5):
        world.look()
    world.write({"resourceType": "Basic", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"}})
    world.look()
    assert attempts == []
    world.write(lab())
    world.look()
    assert len(attempts) == 1


def test_a_search_that_costs_too_much_is_an_error_and_not_asked_each_second(world: Subscribing) -> None:
    feed = world.served.token()
    id = world.active(feed, by_topic("Observation", "id-only", "Observation?code=718-7"))
    right = world.dispatcher._delivery.limits
    world.dispatcher._delivery.limits = BudgetLimits(rows=0)
    world.write(lab())
    for _ in range(3):
        world.look(300)
    found = world.read(world.served.token(), id).json
    assert (found["status"], found["error"]) == ("error", delivery.TOO_COSTLY) and world.endpoint.bundles() == []
    world.dispatcher._delivery.limits = right
    world.look(300)
    assert len(world.endpoint.events()) == 1 and world.read(world.served.token(), id).json["status"] == "active"
