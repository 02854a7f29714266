"""Running jobs: each in a transaction of its own, run again for as long as MongoDB says that it may well succeed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, Final, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from fhir_server.errors import Problem
from fhir_server.store.mongodb_base import BUSY, Base, passing
from fhir_server.store.mongodb_locks import SLOTS
from fhir_server.store.mongodb_write import MongoTransaction

T = TypeVar("T")

_PATIENCE: Final = 45.0  # seconds in which a job must have been committed
_FIRST_PAUSE: Final = 0.004
_LONGEST_PAUSE: Final = 0.5
_DUPLICATE: Final = 11000


class Runner:
    """Runs jobs, as many at once as there are slots in a lock."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._turns = asyncio.Semaphore(SLOTS)
        self._numbers = count(random.randrange(SLOTS))
        self._last = 0

    def place(self, id: str) -> str:
        """A place behind all that this process gave before (and, as far as clocks agree, that any did)."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return f"{self._last:014x}.{id}"

    async def run(self, job: Callable[[MongoTransaction], Awaitable[T]]) -> T:
        """The job's result, once a majority has it.  Raises what the job raises; Problem ``busy`` if it cannot be committed now."""
        async with self._turns:
            end = time.monotonic() + _PATIENCE
            pause = _FIRST_PAUSE
            while True:
                try:
                    return await self._once(job, end)
                except PyMongoError as error:
                    if not _worth_repeating(error):
                        raise
                    if time.monotonic() > end:
                        raise Problem("busy", BUSY) from error
                await asyncio.sleep(random.random() * pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _once(self, job: Callable[[MongoTransaction], Awaitable[T]], end: float) -> T:
        async with self._base.client.start_session() as session:
            await session.start_transaction(ReadConcern("snapshot"), WriteConcern("majority"), ReadPreference.PRIMARY)
            try:
                transaction = MongoTransaction(self._base, session, next(self._numbers) % SLOTS, self.place)
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
