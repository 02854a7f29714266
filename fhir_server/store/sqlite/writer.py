"""The writer of the SQLite store: one thread, one connection, and one commit for all that waits.

Whatever was queued while the last commit ran is committed together, each job in a savepoint of its own; a
durable commit costs far more than a job.  Several processes may each have a writer on one file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

import apsw

from fhir_server.errors import Problem
from fhir_server.store import Transaction
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.schema import open_connection
from fhir_server.store.sqlite.transaction import SqliteTransaction

T = TypeVar("T")
Job = Callable[[SqliteTransaction], Any]
_Waiting = tuple[Job, asyncio.AbstractEventLoop, "asyncio.Future[Any]"]
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]

_MOST: Final = 256  # jobs in one commit: bounds how long the first of them waits


class _AcknowledgementLostError(Exception):
    """SQLite gave up the whole transaction (full disk, I/O error), and with it the jobs that had gone well."""


class Writer:
    """Runs jobs one after the other and hands their outcomes back to the event loops that wait."""

    def __init__(self, path: Path) -> None:
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        connection = open_connection(path)
        self._connection = connection
        self._names = Names(connection)
        self._transaction = SqliteTransaction(connection, self._names)
        self._thread = Thread(target=self._work, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def run(self, job: Job) -> Any:
        """The job's result, once it is durable.  Raises what the job raises; Problem ``busy`` if nothing can be written now."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if not self._thread.is_alive():
            raise RuntimeError("the store is closed")
        self._queue.put((job, loop, future))
        return await future

    def close(self) -> None:
        """Finish what is queued, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        going = True
        while going:
            batch: list[_Waiting] = []
            waiting = self._queue.get()
            while waiting is not None:
                batch.append(waiting)
                if len(batch) == _MOST:
                    break
                try:
                    waiting = self._queue.get_nowait()
                except Empty:
                    break
            going = waiting is not None
            if batch:
                _deliver(batch, self._commit(batch))
        self._connection.close()

    def _commit(self, batch: list[_Waiting]) -> list[_Outcome]:
        try:
            self._transaction.begin()
            if len(batch) == 1:
                return [self._alone(*batch[0])]
            outcomes = [self._beside(job, future) for job, _, future in batch]
            self._transaction.commit()
            return outcomes
        except (apsw.Error, _AcknowledgementLostError) as error:
            self._undo()
            problem = Problem("busy", "Nothing can be written at the moment.")
            problem.__cause__ = error
            return [(future, None, problem) for _, _, future in batch]

    def _alone(self, job: Job, _: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> _Outcome:
        """One job, without the savepoint's journal, which doubles the cost of a big one."""
        try:
            result = job(self._transaction)
        except BaseException as error:
            self._undo()
            return future, None, error
        self._transaction.commit()
        return future, result, None

    def _beside(self, job: Job, future: asyncio.Future[Any]) -> _Outcome:
        self._connection.execute("SAVEPOINT job")
        try:
            result = job(self._transaction)
        except BaseException as error:
            if not self._connection.in_transaction:
                raise _AcknowledgementLostError from error
            self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
            self._names.forget()
            return future, None, error
        self._connection.execute("RELEASE job")
        return future, result, None

    def _undo(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._names.forget()


def driven(job: Callable[[Transaction], Awaitable[T]]) -> Job:
    """The coroutine function as a plain one: it awaits only the transaction, which never suspends."""

    async def awaited(transaction: SqliteTransaction) -> T:
        return await job(transaction)

    def run(transaction: SqliteTransaction) -> Any:
        coroutine: Coroutine[Any, Any, T] = awaited(transaction)
        try:
            coroutine.send(None)
        except StopIteration as finished:
            return finished.value
        coroutine.close()
        raise RuntimeError("a job of a store must await nothing but its transaction")

    return run


def _deliver(batch: list[_Waiting], outcomes: list[_Outcome]) -> None:
    loops: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for (_, loop, _), outcome in zip(batch, outcomes, strict=True):
        loops.setdefault(loop, []).append(outcome)
    for loop, mine in loops.items():
        with suppress(RuntimeError):  # the loop was closed, and nobody waits any more
            loop.call_soon_threadsafe(_settle, mine)


def _settle(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
