"""Runs each job in its own transaction, and repeats it after errors that may be transient."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from fhir_server.errors import Problem
from fhir_server.store.mongodb.failures import BUSY, is_transient
from fhir_server.store.mongodb.locks import SLOTS
from fhir_server.store.mongodb.schema import Connection
from fhir_server.store.mongodb.transaction import MongoTransaction

T = TypeVar("T")

_MAX_RUNNING: Final = 16  # concurrent jobs of one process
_RETRY_SECONDS: Final = 45.0  # time limit for committing a job
_FIRST_PAUSE: Final = 0.004
_LONGEST_PAUSE: Final = 0.5
_MAX_CLAIMS: Final = 64  # locks of which a repeated transaction writes all slots first
_DUPLICATE: Final = 11000
_TOO_LARGE: Final = 388  # for the cache of the storage engine


class TransactionRunner:
    """Runs jobs concurrently, each with its own slot of the lock documents.

    Two transactions that write the document of one slot cannot both commit.  So each process uses its slots in its own
    random order and reuses the one that was returned last: processes that share the database rarely use the same slot.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._running = asyncio.Semaphore(_MAX_RUNNING)
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
        async with self._running, self._slot() as slot:
            end = time.monotonic() + _RETRY_SECONDS
            pause = _FIRST_PAUSE
            claims: set[str] = set()
            while True:
                try:
                    return await self._attempt(job, slot, end, claims)
                except PyMongoError as error:
                    if isinstance(error, OperationFailure) and error.code == _TOO_LARGE:
                        raise Problem("too_large", "The transaction is too large for the database.") from error
                    if not _is_retryable(error):
                        raise
                    if time.monotonic() > end:
                        raise Problem("busy", BUSY) from error
                await asyncio.sleep(random.random() * pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[int]:
        slot = self._slots.pop()
        try:
            yield slot
        finally:
            self._slots.append(slot)

    async def _attempt(self, job: Callable[[MongoTransaction], Awaitable[T]], slot: int, end: float, claims: set[str]) -> T:
        """Run the job once.  ``claims``: the locks with which it begins, to which it adds those that it should have begun with."""
        async with self._connection.client.start_session() as session:
            await session.start_transaction(ReadConcern("snapshot"), WriteConcern("majority"), ReadPreference.PRIMARY)
            transaction = MongoTransaction(self._connection, session, slot, partial(self.next_place, session))
            try:
                await transaction.claim(claims)
                result = await job(transaction)
                await transaction.finish()
            except BaseException:
                claims |= set(sorted(transaction.changed)[:_MAX_CLAIMS])
                await _abandon(session)
                raise
            await _commit(session, end)
            return result


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


def _is_retryable(error: PyMongoError) -> bool:
    """Return whether the error is transient, or a duplicate key that the transaction did not find when it looked."""
    return (
        is_transient(error)
        or isinstance(error, DuplicateKeyError)
        or (isinstance(error, BulkWriteError) and _has_duplicate_key(error.details))
    )


def _has_duplicate_key(details: Any) -> bool:
    return any(failure.get("code") == _DUPLICATE for failure in (details or {}).get("writeErrors", ()))
