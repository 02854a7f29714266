"""E-mail of a test: what was sent, and a mail server that fails."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.mail import Message, UndeliverableError
from fhir_server.smart.notices import contacts, delivery
from fhir_server.store import Store
from tests.smart.environment import World

ADDRESS = "alex@adult.example"


class Mailbox:
    """Takes messages, except as often as ``failures`` says.  ``is_final``: the failures are for good."""

    is_available = True

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.tried: list[Message] = []
        self.failures = 0
        self.is_final = False

    async def send(self, message: Message) -> None:
        self.tried.append(message)
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise UndeliverableError("The mail server answered 451.", is_final=self.is_final)
        self.sent.append(message)


def mailed(smart: SmartContext) -> tuple[SmartContext, Mailbox]:
    """The same context with a mailbox."""
    mailbox = Mailbox()
    return replace(smart, mail=mailbox), mailbox


def with_mail(world: World) -> Mailbox:
    """Let the server of a world send e-mail."""
    world.smart, mailbox = mailed(world.smart)
    world.open()
    return mailbox


def deliver(smart: SmartContext) -> None:
    """Send what is due."""
    asyncio.run(delivery.send_due(smart))


def account(store: Store, username: str = "adult") -> User:
    user = asyncio.run(users.find(store, username))
    assert user is not None
    return user


def give_address(smart: SmartContext, username: str = "adult", address: str = ADDRESS) -> None:
    """Give an account a verified address, of which nobody is told."""
    asyncio.run(contacts.add(smart.store, account(smart.store, username), address, smart.now()))


def codes_in(message: Message) -> list[str]:
    return re.findall(r"[0-9A-Z]{4}(?:-[0-9A-Z]{4})+", message.text)
