"""Running jobs: each in a transaction of its own, run again for as long as MongoDB says that it may well succeed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from fhir_server.errors import Problem
from fhir_server.store.mongodb.failures import BUSY, passing
from fhir_server.store.mongodb.locks import SLOTS
from fhir_server.store.mongodb.schema import Base
from fhir_server.store.mongodb.transaction import MongoTransaction

T = TypeVar("T")

_TURNS: Final = 16  # jobs that one process runs at once
_PATIENCE: Final = 45.0  # seconds in which a job must have been committed
_FIRST_PAUSE: Final = 0.004
_LONGEST_PAUSE: Final = 0.5
_DUPLICATE: Final = 11000
_TOO_LARGE: Final = 388  # for the storage engine's cache


class TransactionRunner:
    """Runs jobs, some at once, each with a slot that no other of them has.

    Two transactions that touch one slot's document cannot both be committed, so the last slot given back is the next given
    out, and each process has its own order of them: then processes that share the database seldom meet in one.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._turns = asyncio.Semaphore(_TURNS)
        self._slots = random.sample(range(SLOTS), SLOTS)
        self._last = 0

    def place(self, id: str) -> str:
        """A place behind all that this process gave before (and, as far as clocks agree, that any did)."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return f"{self._last:014x}.{id}"

    async def run(self, job: Callable[[MongoTransaction], Awaitable[T]]) -> T:
        """The job's result, once a majority has it.  Raises what the job raises; Problem ``busy`` if it cannot be committed now."""
        async with self._turns, self._slot() as slot:
            end = time.monotonic() + _PATIENCE
            pause = _FIRST_PAUSE
            while True:
                try:
                    return await self._once(job, slot, end)
                except PyMongoError as error:
                    if isinstance(error, OperationFailure) and error.code == _TOO_LARGE:
                        raise Problem("too_large", "The transaction is larger than the database takes at once.") from error
                    if not _worth_repeating(error):
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

    async def _once(self, job: Callable[[MongoTransaction], Awaitable[T]], slot: int, end: float) -> T:
        async with self._base.client.start_session() as session:
            await session.start_transaction(ReadConcern("snapshot"), WriteConcern("majority"), ReadPreference.PRIMARY)
            try:
                transaction = MongoTransaction(self._base, session, slot, self.place)
                result = await job(transaction)
                await transaction.finish()
            except BaseException:
                await _abandon(session)
                raise
            await _commit(session, end)
            return result


async def _abandon(session: AsyncClientSession) -> None:
    if session.in_transaction:
        await session.abort_transaction()


async def _commit(session: AsyncClientSession, end: float) -> None:
    """Commit, asking again while it is not known whether that was done: the same commit twice is one."""
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


def _worth_repeating(error: PyMongoError) -> bool:
    """A passing failure; or a key that was there already, though the transaction had looked and not found it."""
    return passing(error) or isinstance(error, DuplicateKeyError) or (isinstance(error, BulkWriteError) and _duplicate(error.details))


def _duplicate(details: Any) -> bool:
    return any(one.get("code") == _DUPLICATE for one in (details or {}).get("writeErrors", ()))
