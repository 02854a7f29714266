"""Runs each job in its own transaction, and repeats it after errors that may be transient."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from fhir_server.errors import Problem
from fhir_server.store.mongodb.failures import BUSY, is_transient
from fhir_server.store.mongodb.locks import SLOTS
from fhir_server.store.mongodb.schema import Connection
from fhir_server.store.mongodb.transaction import MongoTransaction
from fhir_server.store.mongodb.write_queue import OutOfTurnError, WriteQueue, new_ticket

T = TypeVar("T")

_MAX_RUNNING: Final = 16  # concurrent jobs of one process
_MAX_REPEATED: Final = 8  # besides those, jobs that are repeated because it is their turn
_RETRY_SECONDS: Final = 45.0  # time limit for committing a job
_FIRST_PAUSE: Final = 0.004
_LONGEST_PAUSE: Final = 0.5
_LONGEST_IN_TURN: Final = 0.03  # while others wait for this job
_MAX_CLAIMS: Final = 64  # locks of which a repeated transaction writes all slots first
_READS_CONFLICT: Final = 2  # failed attempts after which a job is in line for what it reads, too
_DUPLICATE: Final = 11000
_CONFLICTS: Final = frozenset({112, _DUPLICATE})  # WriteConflict
_TOO_LARGE: Final = 388  # for the cache of the storage engine


class TransactionRunner:
    """Runs jobs concurrently, each with its own slot of the lock documents.

    Two transactions that write the document of one slot cannot both commit.  So each process uses its slots in its own
    random order and reuses the one that was returned last: processes that share the database rarely use the same slot.

    A job that conflicts with another one waits for its turn (:mod:`~fhir_server.store.mongodb.write_queue`).
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._running = asyncio.Semaphore(_MAX_RUNNING)
        self._repeated = asyncio.Semaphore(_MAX_REPEATED)
        self._queue = WriteQueue(connection.counters)
        self._slots = random.sample(range(SLOTS), SLOTS)
        self._last = 0

    def next_place(self, session: AsyncClientSession, id: str) -> str:
        """Return a place after all that this process returned before, and after those of all transactions that began before.

        It follows from the cluster time, which all members and clients share and which never goes back, and not from this
        machine's clock.  Its increments count operations within a second, of which there are fewer than microseconds.
        """
        cluster = session.cluster_time
        if cluster is None:
            raise RuntimeError("The MongoDB server tells no cluster time.")  # every replica set and sharded cluster does
        now = cluster["clusterTime"]
        self._last = max(self._last + 1, now.time * 1_000_000 + min(now.inc, 999_999))
        return f"{self._last:014x}.{id}"

    async def run(self, job: Callable[[MongoTransaction], Awaitable[T]]) -> T:
        """Run the job and return its result once a majority of the replica set has stored it.

        Raises what the job raises, Problem ``busy`` if it cannot be committed in time, and Problem ``too_large`` for a
        transaction that does not fit into MongoDB's cache.
        """
        ticket = new_ticket()
        end = 0.0
        pause = _FIRST_PAUSE
        conflicts = 0
        claims: set[str] = set()
        try:
            while True:
                keys: set[str] = set()
                reads: set[str] = set()
                try:
                    async with self._repeated if ticket.keys else self._running, self._slot() as slot:
                        end = end or time.monotonic() + _RETRY_SECONDS
                        return await self._attempt(job, _Attempt(slot, end, ticket.id, claims, keys, reads))
                except (PyMongoError, OutOfTurnError) as error:
                    if isinstance(error, PyMongoError):
                        _raise_if_lasting(error, end)
                    if not _is_conflict(error):
                        keys.clear()
                conflicts += bool(keys)
                began = time.monotonic()
                if keys and await self._queue.wait(ticket, keys | reads if conflicts > _READS_CONFLICT else keys):
                    end += time.monotonic() - began  # waiting in line is no failure
                    continue
                await asyncio.sleep(random.random() * (min(pause, _LONGEST_IN_TURN) if keys else pause))
                pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            await self._queue.leave(ticket)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[int]:
        slot = self._slots.pop()
        try:
            yield slot
        finally:
            self._slots.append(slot)

    async def _attempt(self, job: Callable[[MongoTransaction], Awaitable[T]], attempt: _Attempt) -> T:
        async with self._connection.client.start_session() as session:
            await session.start_transaction(ReadConcern("snapshot"), WriteConcern("majority"), ReadPreference.PRIMARY)
            place = partial(self.next_place, session)
            transaction = MongoTransaction(self._connection, session, attempt.slot, place, attempt.ticket)
            try:
                await transaction.claim(attempt.claims)
                result = await job(transaction)
                await transaction.finish()
                await _commit(session, attempt.end)
            except BaseException:
                attempt.claims.update(sorted(transaction.changed)[:_MAX_CLAIMS])
                attempt.keys.update(transaction.written_locks)
                attempt.reads.update(transaction.read_locks)
                await _abandon(session)
                raise
            return result


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one run of a job has, and what it notes for the next one.

    ``claims``: the locks with which it begins, to which it adds those that it should have begun with.  ``keys`` and ``reads``: the
    locks of what it wrote, and of what it only read.
    """

    slot: int
    end: float
    ticket: str
    claims: set[str]
    keys: set[str]
    reads: set[str]


async def _abandon(session: AsyncClientSession) -> None:
    if session.in_transaction:
        await session.abort_transaction()


async def _commit(session: AsyncClientSession, end: float) -> None:
    """Commit, and repeat that while the result is unknown.  Repeating the same commit has no further effect."""
    while True:
        try:
            await session.commit_transaction()
            return
        except PyMongoError as error:
            if not error.has_error_label("UnknownTransactionCommitResult"):
                raise
            if time.monotonic() > end:
                raise Problem("busy", BUSY) from error
        await asyncio.sleep(_FIRST_PAUSE)


def _raise_if_lasting(error: PyMongoError, end: float) -> None:
    """Raise what the caller of a job gets, unless the job is to be repeated."""
    if isinstance(error, OperationFailure) and error.code == _TOO_LARGE:
        raise Problem("too_large", "The transaction is too large for the database.") from error
    if not _is_retryable(error):
        raise error
    if time.monotonic() > end:
        raise Problem("busy", BUSY) from error


def _is_conflict(error: Exception) -> bool:
    """Return whether the job failed because others write the same, so that an order helps."""
    return isinstance(error, OutOfTurnError) or (isinstance(error, PyMongoError) and _CONFLICTS & _codes(error) != set())


def _codes(error: PyMongoError) -> set[Any]:
    """Return the code of an error, and those of the writes that it is about."""
    found = {error.code} if isinstance(error, OperationFailure) else set()
    if isinstance(error, BulkWriteError):
        found.update(failure.get("code") for failure in (error.details or {}).get("writeErrors", ()))
    return found


def _is_retryable(error: PyMongoError) -> bool:
    """Return whether the error is transient, or a duplicate key that the transaction did not find when it looked."""
    return is_transient(error) or _DUPLICATE in _codes(error)
