"""Who is next when several transactions want to write the same rows: a queue that all server processes share.

Of two transactions that write one document MongoDB lets one fail.  Without an order, the one that fails can fail again and again
while others come and go.  So a job that failed takes a ticket: it names the locks of what the job writes, and stands in a document of
the database.  The job is repeated when no earlier ticket names one of its locks.  A transaction that began after a ticket was taken
reads it (:meth:`~fhir_server.store.mongodb.transaction.MongoTransaction.permission_epoch`) and takes a ticket itself before it writes
any of its locks.  So all that can pass a waiting job are the transactions that ran when it took its ticket.

Tickets decide about the order alone.  What is written stays right without them: those of a process that ended expire, and a
queue that cannot be reached lets everyone try.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec
from pymongo import ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from fhir_server.store.mongodb.documents import Document

TICKETS: Final = "tickets"
"""The ``_id`` of the queue's document among the counters: ``waiting`` are the tickets, first come first."""

_MAX_KEYS: Final = 64  # locks that a ticket names; a larger transaction is in line for some of its locks only
_LEASE: Final = 5_000  # milliseconds after which the ticket of a process that does not renew it expires
_RENEWED: Final = 1.0  # seconds between two renewals
_LOOK: Final = 0.005  # seconds between two looks at the queue while another process is first
_STUCK: Final = 15.0  # seconds without any movement after which a job is repeated out of turn; then the lease has failed


class Ticket(msgspec.Struct, eq=False):
    """A job's place in the queue; without ``keys`` it has none yet."""

    id: str
    keys: frozenset[str] = frozenset()


class OutOfTurnError(Exception):
    """Another job is first in line for what a transaction would write."""


def new_ticket() -> Ticket:
    """A ticket that is not in the queue yet."""
    return Ticket(uuid.uuid4().hex)


def blocked_keys(waiting: Iterable[Document], ticket: str) -> frozenset[str]:
    """The locks that the tickets before this one name; those of all tickets if it is not in the queue."""
    found: set[str] = set()
    for other in waiting:
        if other["id"] == ticket:
            break
        found.update(other["keys"])
    return frozenset(found)


class WriteQueue:
    """The part of one server process in the queue."""

    def __init__(self, counters: AsyncCollection[Document]) -> None:
        self._tickets = counters.with_options(write_concern=WriteConcern(1))
        self._process = uuid.uuid4().hex
        self._own: dict[str, tuple[Ticket, asyncio.Event]] = {}
        self._line: tuple[Document, ...] = ()
        self._seen = 0  # the number of the change after which the queue was as in ``_line``
        self._moved = 0.0  # when a ticket last left it
        self._renewed = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._look = asyncio.Event()

    async def wait(self, ticket: Ticket, keys: Collection[str]) -> bool:
        """Put the ticket into the queue with these locks besides its own, and return when it is first.  Return whether others were."""
        new = ticket.keys | frozenset(sorted(keys)[:_MAX_KEYS])
        if not new:
            return False
        is_queued = ticket.id in self._own
        event = self._own.setdefault(ticket.id, (ticket, asyncio.Event()))[1]
        if new != ticket.keys:
            ticket.keys = new
            await self._change(_extended(ticket) if is_queued else self._added(ticket))
        self._keep()
        if self._is_first(ticket):
            return False
        self._look.set()
        while not self._is_first(ticket):
            event.clear()
            try:
                await asyncio.wait_for(event.wait(), _STUCK)
            except TimeoutError:
                if time.monotonic() - self._moved > _STUCK:
                    break
        return True

    async def leave(self, ticket: Ticket) -> None:
        """Take the ticket out of the queue, if it is in it."""
        if self._own.pop(ticket.id, None) is None:
            return
        await self._change(_without(ticket))
        self._look.set()

    def _added(self, ticket: Ticket) -> Any:
        own = {"id": {"$literal": ticket.id}, "process": self._process, "keys": {"$literal": sorted(ticket.keys)}, "until": _expiry()}
        return {"$concatArrays": [_UNEXPIRED, [own]]}

    async def _change(self, waiting: Any) -> None:
        """Change the queue's document, and note what is in it now."""
        change = [{"$set": {"waiting": waiting, "value": {"$add": [{"$ifNull": ["$value", 0]}, 1]}}}]
        try:
            found = await self._tickets.find_one_and_update({"_id": TICKETS}, change, upsert=True, return_document=ReturnDocument.AFTER)
        except PyMongoError:  # an election, or a server that is not there: everyone may try
            self._set_line(())
        else:
            self._note(found)

    def _note(self, found: Document | None) -> None:
        if found is not None and found["value"] > self._seen:
            self._seen = found["value"]
            self._set_line(tuple(found["waiting"]))

    def _set_line(self, line: tuple[Document, ...]) -> None:
        if not {one["id"] for one in self._line} <= {one["id"] for one in line}:
            self._moved = time.monotonic()
        self._line = line
        for ticket, event in self._own.values():
            if self._is_first(ticket):
                event.set()

    def _before(self, ticket: Ticket) -> list[Document]:
        """The tickets that this one waits for."""
        earlier: list[Document] = []
        for one in self._line:
            if one["id"] == ticket.id:
                return earlier
            if not ticket.keys.isdisjoint(one["keys"]):
                earlier.append(one)
        return []  # it has expired, or the queue could not be reached

    def _is_first(self, ticket: Ticket) -> bool:
        return not self._before(ticket)

    def _keep(self) -> None:
        """Have the tickets of this process renewed, and look for the end of those of other processes."""
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep_tickets())

    async def _keep_tickets(self) -> None:
        self._renewed = time.monotonic()
        while self._own:
            waits_for_others = any(one["process"] != self._process for ticket, _ in self._own.values() for one in self._before(ticket)[:1])
            self._look.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), _LOOK if waits_for_others else _RENEWED)
            if time.monotonic() - self._renewed > _RENEWED:
                self._renewed = time.monotonic()
                await self._change(_renewed(self._process))
            elif waits_for_others:
                try:
                    self._note(await self._tickets.find_one({"_id": TICKETS}))
                except PyMongoError:
                    await asyncio.sleep(_RENEWED)


def _expiry() -> Document:
    return {"$add": ["$$NOW", _LEASE]}


_UNEXPIRED: Final[Document] = {"$filter": {"input": {"$ifNull": ["$waiting", []]}, "as": "one", "cond": {"$gt": ["$$one.until", "$$NOW"]}}}


def _mapped(condition: Document, change: Document) -> Document:
    """The unexpired tickets; those that meet the condition with other members."""
    changed = {"$mergeObjects": ["$$one", change]}
    return {"$map": {"input": _UNEXPIRED, "as": "one", "in": {"$cond": [condition, changed, "$$one"]}}}


def _extended(ticket: Ticket) -> Document:
    return _mapped({"$eq": ["$$one.id", ticket.id]}, {"keys": {"$literal": sorted(ticket.keys)}})


def _renewed(process: str) -> Document:
    return _mapped({"$eq": ["$$one.process", process]}, {"until": _expiry()})


def _without(ticket: Ticket) -> Document:
    return {"$filter": {"input": _UNEXPIRED, "as": "one", "cond": {"$ne": ["$$one.id", ticket.id]}}}
