"""The port through which :mod:`fhir_server.smart.notices` sends e-mail.  The operator's settings decide what is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """A message of plain text.  ``id`` is the same if it is sent again, so that a receiver can drop doubles (RFC 5322 3.6.4)."""

    id: str
    to: str
    subject: str
    text: str


class UndeliverableError(Exception):
    """The message was not taken.  ``is_final``: it is not worth sending it again."""

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Mail(Protocol):
    """Sends messages."""

    @property
    def is_available(self) -> bool:
        """Whether messages can be sent at all: pages offer nothing that needs one otherwise."""

    async def send(self, message: Message) -> None:
        """Hand a message over.  Raises UndeliverableError, whose text names neither address nor content."""


class NoMail:
    """Mail of a server without any."""

    is_available = False

    async def send(self, message: Message) -> None:
        raise UndeliverableError("This server sends no e-mail.", is_final=True)
