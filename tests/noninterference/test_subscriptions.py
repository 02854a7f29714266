"""Notifications are equal byte for byte when only data hidden from the subscriber differs, whenever it was written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from fhir_server.access.view import View
from fhir_server.clock import MAX_INSTANT
from fhir_server.interactions import subscription_records
from fhir_server.interactions.subscription_events import Found, Progress
from fhir_server.interactions.subscription_plan import Plan
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.visibility import Visibility
from fhir_server.smart.core.context import digest
from fhir_server.subscriptions import delivery
from fhir_server.subscriptions.delivery import Delivery
from fhir_server.subscriptions.dispatcher import Dispatcher
from fhir_server.subscriptions.socket import Socket
from fhir_server.web.public_fetch import Network
from tests.mongo.shared_mongod import emptied_url
from tests.noninterference.case_generator import case
from tests.noninterference.comparison import Twins
from tests.noninterference.oracle import CALLERS
from tests.noninterference.paired_server import MINUTE, SECOND, Ask
from tests.noninterference.planted_leaks import Patch, of_record, sighted
from tests.subscriptions.environment import by_criteria, by_topic
from tests.subscriptions.test_requests import extension
from tests.subscriptions.websockets import criteria_on_websocket, topic_on_websocket

BY_CALLER = pytest.mark.parametrize("number", range(len(CALLERS)), ids=[caller.name for caller in CALLERS])
WANTED = (
    by_topic("Observation", "full-resource"),
    by_topic("Observation", "empty"),
    by_topic("Observation", "id-only", "Observation?category=laboratory"),
    by_topic("Appointment", "full-resource"),
    by_topic("Account", "full-resource"),
    by_topic("RelatedPerson", "id-only"),
    by_topic("Patient", "full-resource"),
    by_criteria("MedicationRequest", payload="application/fhir+json"),
    by_criteria("Encounter"),
    topic_on_websocket("Observation", "full-resource"),
    topic_on_websocket("Appointment", "empty", **extension("backport-heartbeat-period", valueUnsignedInt=60)),
    criteria_on_websocket("Observation?category=laboratory"),
)
Sent = tuple[str, str, bytes]


class NoticedError(AssertionError):
    """The subscriber can tell the servers apart."""


class Wire:
    """What a world sent, and whether its endpoint answers."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.accepts = True

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        return ("93.184.216.34",)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append((request.method, str(request.url), request.content))
        return httpx.Response(200 if self.accepts else 500)


class Line:
    """A websocket whose client confirms while the wire accepts."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def send(self, message: Any) -> None:
        self._wire.sent.append(("websocket", message["type"], message.get("text", str(message.get("code"))).encode()))

    async def confirm(self) -> None:
        if not self._wire.accepts:
            raise OSError

    def abort(self) -> None:
        self._wire.sent.append(("websocket", "abort", b""))


class Told:
    """Two servers with the same Subscriptions of a caller."""

    def __init__(self, twins: Twins) -> None:
        self.twins = twins
        self.wires = (Wire(), Wire())
        self.dispatchers: list[Dispatcher] = []
        for world, wire in zip(twins.worlds, self.wires, strict=True):
            object.__setattr__(world.parts.smart, "network", Network(wire.resolve, httpx.MockTransport(wire.answer)))
            self.dispatchers.append(world.parts.subscribers.dispatcher(lambda counts: None))
        self.ids: list[str] = []

    async def subscribe(self) -> int:
        """Subscribe to all that the caller may, from the beginning of time.  Return to how much that is."""
        for body in WANTED:
            headers = (("content-type", "application/fhir+json"),)
            answer = await self.twins.both(Ask("subscribe", "POST", "Subscription", "", headers, json.dumps(body).encode()))
            if answer.status == 201:
                self.ids.append(json.loads(answer.body)["id"])
        for world in self.twins.worlds:
            values = world.parts.store.key_values
            for stored in await subscription_records.list_all(values, 0):
                await subscription_records.replace(values, stored, msgspec.structs.replace(stored.subscription, since=0))
            await subscription_records.note_change(values, "rewound")
        await self.bind()
        return len(self.ids)

    async def bind(self) -> None:
        """Bind what has a websocket to a new one in each world."""
        for world, wire, token, dispatcher in zip(self.twins.worlds, self.wires, self.twins.tokens, self.dispatchers, strict=True):
            line, values, now = Line(wire), world.parts.store.key_values, world.parts.clock()
            found = [one for one in await subscription_records.list_all(values, now) if '"websocket"' in one.subscription.text]
            socket = Socket(line.send, line)
            await dispatcher.sockets.add(socket)
            await dispatcher.sockets.bind(socket, found, digest(token), "subscriber", MAX_INSTANT, now)

    async def look(self, by: int = 10 * SECOND) -> None:
        """Let time pass, and compare what was sent and what the Subscriptions say of it."""
        self.twins.move(by)
        for dispatcher in self.dispatchers:
            for _ in range(3 * len(WANTED) // 4):  # 4 of one owner at a time: until all that is due has been told
                await dispatcher.look()
                await dispatcher.settle()
        one, other = (sorted(wire.sent) for wire in self.wires)
        if one != other:
            raise NoticedError(f"{set(one) ^ set(other)}")
        await self.read()

    async def read(self) -> None:
        for id in self.ids:
            for path in (f"Subscription/{id}", f"Subscription/{id}/$status", f"Subscription/{id}/$events"):
                answers = [await world.ask(Ask.get("read", path), token) for world, token in self.both()]
                if answers[0].bytes() != answers[1].bytes():
                    raise NoticedError(f"{path}: {answers}")

    def both(self) -> list[tuple[Any, str]]:
        return list(zip(self.twins.worlds, self.twins.tokens, strict=True))


async def compared(seed: int, urls: tuple[str, str] = ("memory:", "memory:")) -> int:
    """Compare what two servers send, of what was there, of what is written later, and after failures.  Return how much it was."""
    twins = Twins(case(seed), urls)
    await twins.open(lifetime=24 * 60 * MINUTE)
    try:
        if "*" not in twins.case.caller.scope:
            subscriber = replace(twins.case.caller, scope=f"{twins.case.caller.scope} patient/Subscription.cru")
            twins.tokens = [await world.token(subscriber, 24 * 60 * MINUTE) for world in twins.worlds]
        told = Told(twins)
        if not await told.subscribe():
            return 0
        await told.look()
        for secret in twins.case.late:
            await twins._happen(secret)
            await told.look()
        for wire in told.wires:
            wire.accepts = False
        for id in told.ids:  # each has something to tell that is not accepted
            body = json.loads((await twins.both(Ask.get("read", f"Subscription/{id}"))).body) | {"status": "requested"}
            headers = (("content-type", "application/fhir+json"),)
            await twins.both(Ask("again", "PUT", f"Subscription/{id}", "", headers, json.dumps(body).encode()))
        for _ in range(4):
            await told.look(3 * MINUTE)
        for wire in told.wires:
            wire.accepts = True
        await told.bind()
        await told.look(3 * MINUTE)
        return len(told.wires[0].sent)
    finally:
        await twins.close()


@BY_CALLER
def test_notifications_are_equal_when_only_hidden_data_differs(number: int) -> None:
    sent = [asyncio.run(compared(number + len(CALLERS) * turn)) for turn in range(3)]
    assert CALLERS[number].kind == "PX" or min(sent) > 10, "a server that sends nothing would pass, too"


@pytest.mark.parametrize("name", ["parent of a teenager", "limited backend"])
def test_notifications_of_each_store_reveal_no_hidden_data(name: str, tmp_path: Path) -> None:
    number = [caller.name for caller in CALLERS].index(name)
    assert asyncio.run(compared(number, (f"sqlite:///{tmp_path}/one.sqlite", f"sqlite:///{tmp_path}/two.sqlite"))) > 30
    assert asyncio.run(compared(number, (emptied_url("one"), emptied_url("two")))) > 30


def events_are_those_of_the_record(patch: Patch) -> None:
    patch.setattr(View, "changes", sighted(of_record)(View.changes))


def numbers_count_hidden_rows(patch: Patch) -> None:
    exact, notify, skipped = delivery.next_events, delivery.notification, [0]

    async def next_events(view: View, plan: Plan, base: str, progress: Progress, horizon: int) -> Found:
        visibility = await of_record(view)
        found = await exact(view, plan, base, progress, horizon)
        changes = await view._snapshot.newest_of([(plan.type, id) for id in await _ids(view, plan.type)], {plan.type: visibility})
        skipped[0] = len(changes)
        return found

    def notification(id: str, subscription: Any, plan: Plan, base: str, kind: str, now: int, events: Any) -> bytes:
        return notify(id, subscription, plan, base, kind, now, [(number + skipped[0], event) for number, event in events])

    patch.setattr(delivery, "next_events", next_events)
    patch.setattr(delivery, "notification", notification)


def a_websocket_is_pinged_for_each_write_of_the_type(patch: Patch) -> None:
    exact, seen = Delivery._attempt, dict[tuple[int, str], int]()

    async def attempt(self: Delivery, stored: Any, now: int, horizon: int, **options: Any) -> Any:
        async with self.service.store.snapshot() as snapshot:
            everything = Visibility.unrestricted(len(await snapshot.classes()), now)
            count = await snapshot.count("Observation", EVERYTHING, everything)
        if seen.setdefault((id(self), stored.key), count) != count:
            seen[id(self), stored.key] = count
            await self.sockets.tell(stored.key, f"ping {stored.id}", 5)
        return await exact(self, stored, now, horizon, **options)

    patch.setattr(Delivery, "_attempt", attempt)


async def _ids(view: View, type: str) -> list[str]:
    page = await view._snapshot.find(type, EVERYTHING, await of_record(view), limit=1000)
    return [row.id for row in page.rows]


def an_error_names_the_row_that_was_to_be_told_last(patch: Patch) -> None:
    exact = Delivery._failed

    async def failed(self: Delivery, stored: Any, now: int) -> Any:
        store = self.service.store
        async with store.snapshot() as snapshot:
            everything = Visibility.unrestricted(len(await snapshot.classes()), now)
            rows = (await snapshot.find("Observation", EVERYTHING, everything, limit=1000)).rows
        patch.setattr(delivery, "NOT_ACCEPTED", f"Not accepted: {max(row.id for row in rows)}")
        return await exact(self, stored, now)

    patch.setattr(Delivery, "_failed", failed)


@pytest.mark.parametrize(
    "plant",
    [
        events_are_those_of_the_record,
        numbers_count_hidden_rows,
        an_error_names_the_row_that_was_to_be_told_last,
        a_websocket_is_pinged_for_each_write_of_the_type,
    ],
    ids=lambda plant: plant.__name__.replace("_", " "),
)
def test_a_planted_leak_of_notifications_is_noticed_beside_a_control(plant: Callable[[Patch], None]) -> None:
    for seed in range(4 * len(CALLERS)):
        with pytest.MonkeyPatch.context() as patch:
            plant(patch)
            try:
                asyncio.run(compared(seed))
                continue
            except NoticedError:
                pass
        asyncio.run(compared(seed))  # the control: the same case is silent without the leak
        return
    raise AssertionError("No case noticed the leak.")
