"""The MongoDB store, for several server processes or machines that share one database.

URL ``mongodb://host[,host...]/database?options`` or ``mongodb+srv://...``, of a replica set or a sharded cluster of MongoDB
6.0 or later.  The database is ``fhir`` unless the URL names one.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from pymongo.errors import ConfigurationError, PyMongoError

from fhir_server.store import LinkEntries, LogEntry, Transaction
from fhir_server.store.logs import PurgedLine, unlinked
from fhir_server.store.mongodb.failures import busy_if_transient, is_transient
from fhir_server.store.mongodb.key_value import MongoKeyValues, MongoLogs
from fhir_server.store.mongodb.reader import MongoSnapshot
from fhir_server.store.mongodb.retry import TransactionRunner
from fhir_server.store.mongodb.schema import Connection

T = TypeVar("T")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class MongoStore:
    """See :class:`fhir_server.store.Store`.  ``options`` are passed to PyMongo's client."""

    def __init__(self, url: str, *, is_read_only: bool = False, **options: Any) -> None:
        self.connection = Connection(url, is_read_only=is_read_only, **options)
        self._runner = TransactionRunner(self.connection)
        self._logs = MongoLogs(self.connection, self._runner)
        self.key_values = MongoKeyValues(self.connection, self._runner)

    async def prepare(self) -> None:
        await self.connection.prepare()

    async def latest_time(self) -> int:
        hello = await self.connection.client.admin.command("hello")
        local: datetime = hello["localTime"].replace(tzinfo=UTC)
        return (local - _EPOCH) // timedelta(microseconds=1)

    def snapshot(self) -> AbstractAsyncContextManager[MongoSnapshot]:
        return self._snapshot()

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[MongoSnapshot]:
        await self.connection.ensure_ready()
        async with busy_if_transient():
            primary = await self.connection.confirm_primary()
            async with self.connection.client.start_session(snapshot=True) as session:
                yield MongoSnapshot(self.connection, session, primary)

    async def write(self, job: Callable[[Transaction], Awaitable[T]]) -> T:
        if self.connection.is_read_only:
            raise RuntimeError("the store was opened for reading alone")
        await self.connection.ensure_ready()
        return await self._runner.run(job)

    async def append_log(self, log: str, entries: Iterable[LogEntry], link: LinkEntries = unlinked) -> tuple[LogEntry, ...]:
        return await self._logs.append(log, entries, link)

    async def purge_log(self, log: str, purged: Sequence[PurgedLine], entry: LogEntry, link: LinkEntries) -> None:
        await self._logs.purge(log, purged, entry, link)

    async def pending_entries(self, log: str, after: str = "", limit: int = 1000) -> tuple[tuple[str, bytes], ...]:
        return await self._logs.pending(log, after, limit)

    async def discard_pending(self, log: str, ids: Collection[str]) -> None:
        await self._logs.discard(log, ids)

    async def read_log(self, log: str, after: int = 0, limit: int = 1000) -> tuple[tuple[int, bytes], ...]:
        return await self._logs.read(log, after, limit)

    async def close(self) -> None:
        await self.connection.client.close()


def connect(url: str, *, is_read_only: bool = False) -> MongoStore:
    """Return the store at this URL without connecting to it.  Raises ValueError for an invalid URL or option."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # otherwise PyMongo ignores an unknown option, such as a misspelled tls
            return MongoStore(url, is_read_only=is_read_only)
    except (ConfigurationError, ValueError, TypeError, UserWarning) as error:
        raise ValueError(f"FHIR_SERVER_STORE is not a usable MongoDB URL: {error}") from None


def explain_failure(error: Exception) -> str | None:
    """See :func:`fhir_server.store.explain_failure`.  MongoDB's own message may hold stored values, so only its code is shown."""
    if not isinstance(error, PyMongoError):
        return None
    if is_transient(error):
        return "The MongoDB of FHIR_SERVER_STORE is busy or cannot be reached; try again."
    return f"The MongoDB of FHIR_SERVER_STORE refused a command ({type(error).__name__}, code {getattr(error, 'code', None)})."
