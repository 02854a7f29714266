"""The writer of the SQLite store: one thread with one connection runs all jobs.

Jobs that were queued while the last commit ran are committed together, because a durable commit costs much more than a
job; long jobs are not, because each would wait for all.  Each has its own savepoint, so that one failed job does not affect the
others.  Each process that shares the file has its own writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any, Final, TypeVar

import apsw

from fhir_server import budget
from fhir_server.errors import Problem
from fhir_server.store import Transaction
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.job_queue import JobQueue
from fhir_server.store.sqlite.schema import open_connection
from fhir_server.store.sqlite.transaction import SqliteTransaction

T = TypeVar("T")
Job = Callable[[SqliteTransaction], Any]
_QueuedJob = tuple[Job, asyncio.AbstractEventLoop, "asyncio.Future[Any]"]
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]

_MAX_BATCH: Final = 256  # jobs in one commit
_BATCH_SECONDS: Final = 0.02  # of jobs, after which they are committed; limits how long the first of them waits


class _TransactionLostError(Exception):
    """SQLite rolled back the whole transaction (full disk, I/O error), including the jobs that had succeeded."""


class Writer:
    """Runs jobs one after the other and returns their results to the waiting event loops."""

    def __init__(self, path: Path) -> None:
        self._queue: JobQueue[_QueuedJob] = JobQueue()
        connection = open_connection(path)
        self._connection = connection
        self._names = Names(connection)
        self._transaction = SqliteTransaction(connection, self._names)
        self._thread = Thread(target=self._work, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def run(self, job: Job) -> Any:
        """Run the job and return its result once it is durable.

        Raises what the job raises, and Problem ``busy`` if nothing can be written now.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if not self._thread.is_alive():
            raise RuntimeError("the store is closed")
        spending = budget.current()
        self._queue.put(None if spending is None else spending.client, (job, loop, future))
        return await future

    def close(self) -> None:
        """Finish the queued jobs, then stop."""
        self._queue.close()
        self._thread.join()

    def _work(self) -> None:
        while (first := self._queue.take(wait=True)) is not None:
            batch = [first]
            _deliver(batch, self._commit(batch))
        self._connection.close()

    def _commit(self, batch: list[_QueuedJob]) -> list[_Outcome]:
        """Run and commit a job, and those that wait meanwhile, which are added to the batch."""
        try:
            self._transaction.begin()
            if self._queue.is_empty:
                return [self._run_single(*batch[0])]
            outcomes: list[_Outcome] = []
            until = monotonic() + _BATCH_SECONDS
            while True:
                job, _, future = batch[-1]
                outcomes.append(self._run_in_savepoint(job, future))
                if len(batch) == _MAX_BATCH or monotonic() > until or (waiting := self._queue.take()) is None:
                    break
                batch.append(waiting)
            self._transaction.commit()
            return outcomes
        except Exception as error:  # also of the function that links log entries; the thread must not end
            self._roll_back()
            return [(future, None, _problem(error)) for _, _, future in batch]

    def _run_single(self, job: Job, _: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> _Outcome:
        """Run the only job of a commit without a savepoint, whose journal would double the cost of a large job."""
        self._transaction.epochs = {}
        try:
            result = job(self._transaction)
        except BaseException as error:
            self._roll_back()
            return future, None, error
        self._transaction.commit()
        return future, result, None

    def _run_in_savepoint(self, job: Job, future: asyncio.Future[Any]) -> _Outcome:
        self._connection.execute("SAVEPOINT job")
        self._transaction.epochs = {}
        logged = len(self._transaction.logged)
        try:
            result = job(self._transaction)
        except BaseException as error:
            if not self._connection.in_transaction:
                raise _TransactionLostError from error
            self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
            del self._transaction.logged[logged:]
            self._names.forget()
            return future, None, error
        self._connection.execute("RELEASE job")
        return future, result, None

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._names.forget()


def _problem(error: Exception) -> Exception:
    """What the jobs of a failed commit raise."""
    if not isinstance(error, apsw.Error | _TransactionLostError):
        return error
    problem = Problem("busy", "Nothing can be written at the moment. Try again later.")
    problem.__cause__ = error
    return problem


def as_plain_job(job: Callable[[Transaction], Awaitable[T]]) -> Job:
    """Return a plain function that runs the coroutine function ``job``.

    That works because a job awaits only the transaction, which never suspends.  The plain function raises RuntimeError
    if the job awaits anything else.
    """

    async def run_job(transaction: SqliteTransaction) -> T:
        return await job(transaction)

    def run(transaction: SqliteTransaction) -> Any:
        coroutine: Coroutine[Any, Any, T] = run_job(transaction)
        try:
            coroutine.send(None)
        except StopIteration as finished:
            return finished.value
        coroutine.close()
        raise RuntimeError("a job of a store must not await anything but its transaction")

    return run


def _deliver(batch: list[_QueuedJob], outcomes: list[_Outcome]) -> None:
    loops: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for (_, loop, _), outcome in zip(batch, outcomes, strict=True):
        loops.setdefault(loop, []).append(outcome)
    for loop, loop_outcomes in loops.items():
        with suppress(RuntimeError):  # the loop was closed, so nothing waits for the result
            loop.call_soon_threadsafe(_set_results, loop_outcomes)


def _set_results(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
