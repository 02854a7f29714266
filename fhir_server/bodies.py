"""Reads the bodies of requests to the FHIR API, up to a limit for each kind of body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fhir_server.errors import Problem
from fhir_server.interactions.routing import BodyKind

MAX_FORM: Final = 64 * 1024

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class BodyLimit(NamedTuple):
    """The largest body of one kind, in bytes, and what such a body is called."""

    size: int
    name: str

    def exceeded(self) -> Problem:
        """The Problem of a larger body."""
        return Problem("too_large", f"The body is larger than {self.size} bytes, the limit for {self.name}.")


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The largest bodies, in bytes: of a batch or transaction, and of one resource.  A form is as small as on the pages."""

    bundle: int
    resource: int

    def of(self, kind: BodyKind) -> BodyLimit:
        """The limit for this kind of body."""
        if kind == "bundle":
            return BodyLimit(self.bundle, "a batch or transaction")
        if kind == "form":
            return BodyLimit(min(MAX_FORM, self.resource), "a search by POST")
        return BodyLimit(min(self.resource, self.bundle), "a single resource")


class BodyRoom:
    """The memory for bodies on their way.  Small bodies need none of it."""

    def __init__(self, total: int = 96 * 1024 * 1024) -> None:
        self._total = total
        self._taken: dict[str, int] = {}

    def take(self, client: str, size: int) -> None:
        """Take room for one more part of a client's body.  Raises Problem ``busy`` if there is none."""
        taken = self._taken.get(client, 0)
        if taken + size > self._total // 2 or sum(self._taken.values()) + size > self._total:
            raise Problem("busy", "Too many large bodies are on their way. Try again later.")
        self._taken[client] = taken + size

    def give_back(self, client: str, size: int) -> None:
        """Give back what a body has taken."""
        if size:
            self._taken[client] -= size
            if not self._taken[client]:
                del self._taken[client]


async def read_body(receive: Receive, headers: Mapping[str, str], limit: BodyLimit, room: BodyRoom, client: str) -> tuple[bytes, bool]:
    """The body, and whether it was complete when the head was read, so that nothing was waited for.

    Raises Problem ``too_large``: for a declared length before anything is read, else as soon as the body is larger.  Raises
    ``invalid`` if the client ends the connection early, ``busy`` if there is no room for the bodies that are on their way.
    """
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit.size:
        raise limit.exceeded()
    parts: list[bytes] = []
    size = taken = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem("invalid", "The body ended early.")
            part = message.get("body", b"")
            size += len(part)
            if size > limit.size:
                raise limit.exceeded()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts), len(parts) == 1
            if size > MAX_FORM:
                room.take(client, size - taken)
                taken = size
    finally:
        room.give_back(client, taken)
