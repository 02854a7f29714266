"""Reads the bodies of requests to the FHIR API, up to a limit for each kind of body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fhir_server.budget import Budget
from fhir_server.content_codings import Inflater, inflater_for
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

    The request holds the memory of a large body until it ends.  The limit holds for a body with ``Content-Encoding: gzip`` as it comes
    and as it is then.  Raises Problem ``too_large``: for a declared length before anything is read, else as soon as the body is larger.
    Raises ``media_type`` for another coding, before anything is read; ``invalid`` if the body ends early, ``busy`` if there is no room.
    """
    inflater = inflater_for(headers.get("content-encoding", ""))
    declared = headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 15 or int(declared) > limit.size):
        raise limit.exceeded()
    if declared.isdecimal() and int(declared) > MAX_FORM:
        await spending.client.wait_for_body(int(declared))
    body = _Body(limit, spending)
    received = messages = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem("invalid", "The body ended early.")
        part = message.get("body", b"")
        messages += 1
        received += len(part)
        if received > limit.size:
            raise limit.exceeded()
        if inflater is None:
            body.add(part)
        else:
            await _inflate(part, inflater, body, spending)
        if not message.get("more_body", False):
            if inflater is not None:
                inflater.end()
            return b"".join(body.parts), messages == 1


async def _inflate(part: bytes, inflater: Inflater, body: _Body, spending: Budget) -> None:
    for text in inflater.slices(part):
        body.add(text)
        await spending.give_way()


class _Body:
    """What has come of a body.  The request holds its memory from :data:`MAX_FORM` on."""

    def __init__(self, limit: BodyLimit, spending: Budget) -> None:
        self._limit, self._spending = limit, spending
        self.parts: list[bytes] = []
        self._size = self._taken = 0

    def add(self, part: bytes) -> None:
        """Take a part.  Raises Problem ``too_large`` or ``busy``."""
        self._size += len(part)
        if self._size > self._limit.size:
            raise self._limit.exceeded()
        self.parts.append(part)
        if self._size > MAX_FORM:
            self._spending.take_for_body(self._size - self._taken)
            self._taken = self._size
