"""Reads the bodies of requests to the FHIR API, up to a limit for each kind of body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fhir_server.budget import Budget
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


async def read_body(receive: Receive, headers: Mapping[str, str], limit: BodyLimit, spending: Budget) -> tuple[bytes, bool]:
    """The body, and whether it was complete when the head was read, so that nothing was waited for.

    The request holds the memory of a large body until it ends.  Raises Problem ``too_large``: for a declared length before anything is
    read, else as soon as the body is larger.  Raises ``invalid`` if the client ends the connection early, ``busy`` if there is no room.
    """
    declared = headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 15 or int(declared) > limit.size):
        raise limit.exceeded()
    if declared.isdecimal() and int(declared) > MAX_FORM:
        await spending.client.wait_for_body(int(declared))
    parts: list[bytes] = []
    size = taken = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem("invalid", "The body ended early.")
        part = message.get("body", b"")
        size += len(part)
        if size > limit.size:
            raise limit.exceeded()
        parts.append(part)
        more = message.get("more_body", False)
        if size > MAX_FORM:
            spending.take_for_body(size - taken)
            taken = size
        if not more:
            return b"".join(parts), len(parts) == 1
