"""Notices are sent once or twice, never not at all, whatever happens to the mail server or the process."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from fhir_server.smart.accounts import account_events
from fhir_server.smart.core import notice_queue
from fhir_server.smart.core.context import DAY, MINUTE, SmartContext
from fhir_server.smart.core.mail import Message
from fhir_server.smart.notices import contacts, delivery
from fhir_server.store import Store, open_store
from tests.mongo.shared_mongod import fresh_url
from tests.notices.mailbox import ADDRESS, Mailbox, account, deliver, give_address, mailed
from tests.smart.environment import BASE, ORIGIN, Clock, World, records


def change(world: World) -> None:
    """Something about signing in is changed."""
    asyncio.run(account_events.record(world.store, account(world.store), "second", world.clock()))


def waiting(store: Store) -> int:
    return len(asyncio.run(store.key_values.list_all("notice", 0)))


def test_changes_of_signing_in_are_told_and_sign_ins_are_not(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    for kind in account_events.DESCRIPTIONS:
        asyncio.run(account_events.record(world.store, account(world.store), kind, world.clock()))
    deliver(world.smart)
    told = len(account_events.DESCRIPTIONS) - 2  # not a sign-in; the end of an address is told to that address
    assert [message.to for message in mailbox.sent] == [ADDRESS] * told
    assert waiting(world.store) == 0


def test_an_account_without_an_address_leaves_nothing_in_the_queue(world: World, mailbox: Mailbox) -> None:
    change(world)
    deliver(world.smart)
    assert mailbox.tried == [] and waiting(world.store) == 0


def test_a_notice_goes_to_the_address_of_the_moment(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    change(world)
    asyncio.run(contacts.remove(world.store, account(world.store), world.clock()))
    deliver(world.smart)
    assert [message.to for message in mailbox.sent] == [ADDRESS]  # of the removal only


def test_notices_are_sent_again_with_growing_pauses_for_a_day(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    change(world)
    mailbox.failures, began = 1000, world.clock()
    while waiting(world.store):
        deliver(world.smart)
        world.clock.forward(MINUTE)
    assert world.clock() - began <= DAY + MINUTE
    assert len(delivery.PAUSES) < len(mailbox.tried) < 20
    assert len({message.id for message in mailbox.tried}) == 1  # so that a receiver can drop doubles


def test_a_notice_is_sent_when_the_mail_server_is_back(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    change(world)
    mailbox.failures = 1
    deliver(world.smart)
    deliver(world.smart)
    assert (len(mailbox.tried), mailbox.sent) == (1, [])  # not before its pause
    world.clock.forward(delivery.PAUSES[0])
    deliver(world.smart)
    assert len(mailbox.sent) == 1 and waiting(world.store) == 0


def test_an_address_that_is_refused_for_good_is_not_tried_again(world: World, mailbox: Mailbox, caplog: pytest.LogCaptureFixture) -> None:
    give_address(world.smart)
    change(world)
    mailbox.failures, mailbox.is_final = 1, True
    with caplog.at_level(logging.WARNING):
        deliver(world.smart)
    assert waiting(world.store) == 0 and "could not be sent" in caplog.text
    assert ADDRESS not in caplog.text


def test_a_process_that_dies_while_it_sends_loses_no_notice(world: World, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    give_address(world.smart)
    change(world)

    async def killed(message: Message) -> None:
        await Mailbox.send(mailbox, message)
        raise asyncio.CancelledError

    monkeypatch.setattr(mailbox, "send", killed)
    with pytest.raises(asyncio.CancelledError):
        deliver(world.smart)
    monkeypatch.undo()
    world.clock.forward(delivery.PAUSES[0])
    deliver(world.smart)
    assert len(mailbox.sent) == 2 and len({message.id for message in mailbox.sent}) == 1


@pytest.mark.parametrize("scheme", ["memory", "sqlite", "mongodb"])
def test_of_several_processes_one_sends_a_notice(scheme: str, tmp_path: Path) -> None:
    url = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/fhir.sqlite"}.get(scheme) or fresh_url()
    clock = Clock()

    async def run() -> list[Message]:
        store = open_store(url)
        await store.prepare()
        store.key_values.now = clock
        smart, mailbox = mailed(SmartContext(store, ORIGIN, BASE, clock, records))
        for number in range(8):
            await notice_queue.add(store, "security", address=f"a{number}@b.example")
        await asyncio.gather(*(delivery.send_due(smart) for _ in range(4)))
        await store.close()
        return mailbox.sent

    assert sorted(message.to for message in asyncio.run(run())) == [f"a{number}@b.example" for number in range(8)]


def test_delivery_waits_while_the_server_is_read_only(world: World, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    monkeypatch.setattr(delivery, "_LOOK_SECONDS", 0)

    async def run() -> None:
        answers = iter([False, False, True])

        def is_writable() -> bool:
            looks.append(next(answers))
            return looks[-1]

        async def end(_: SmartContext) -> None:
            raise asyncio.CancelledError

        monkeypatch.setattr(delivery, "send_due", end)
        await delivery.keep_sending(world.smart, is_writable)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert looks == [False, False, True]


def test_messages_hold_no_word_of_a_record_and_no_name(world: World, mailbox: Mailbox) -> None:
    """F18-2, for the kinds that there are: only the message that somebody asked for has a user name."""
    give_address(world.smart)
    change(world)
    asyncio.run(contacts.propose(world.store, account(world.store), "new@adult.example", world.clock()))
    asyncio.run(notice_queue.add(world.store, "recovery", address=ADDRESS))
    deliver(world.smart)
    assert len(mailbox.sent) == 3
    for message in mailbox.sent:
        words = f"{message.subject} {message.text}"
        assert world.smart.organization in words  # the control
        assert not [word for word in ("Alex", "Adult", "Patient", "result", "adult@", "alex@") if word in words]
    assert ["User name: adult" in message.text for message in mailbox.sent].count(True) == 1
