"""The MongoDB store: for an institution that has outgrown one machine.

URL ``mongodb://host[,host...]/database?options`` or ``mongodb+srv://...``, of a replica set or a sharded cluster of MongoDB
6.0 or later; the database is ``fhir`` unless named.  Any number of server processes may share it.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from pymongo.errors import ConfigurationError

from fhir_server.store import Transaction
from fhir_server.store.mongodb.failures import answered
from fhir_server.store.mongodb.key_value import MongoJournals, MongoKeyValues
from fhir_server.store.mongodb.reader import MongoSnapshot
from fhir_server.store.mongodb.retry import TransactionRunner
from fhir_server.store.mongodb.schema import Base

T = TypeVar("T")


class MongoStore:
    """See :class:`fhir_server.store.Store`.  ``options`` go to PyMongo's client."""

    def __init__(self, url: str, **options: Any) -> None:
        self.base = Base(url, **options)
        self._runner = TransactionRunner(self.base)
        self._journals = MongoJournals(self.base, self._runner)
        self.key_values = MongoKeyValues(self.base, self._runner)

    async def prepare(self) -> None:
        await self.base.prepare()

    def snapshot(self) -> AbstractAsyncContextManager[MongoSnapshot]:
        return self._snapshot()

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[MongoSnapshot]:
        await self.base.ready()
        async with answered():
            primary = await self.base.sure()
            async with self.base.client.start_session(snapshot=True) as session:
                yield MongoSnapshot(self.base, session, primary)

    async def write(self, job: Callable[[Transaction], Awaitable[T]]) -> T:
        await self.base.ready()
        return await self._runner.run(job)

    async def append(self, journal: str, lines: Iterable[bytes]) -> None:
        await self._journals.append(journal, lines)

    async def journal(self, journal: str, after: int = 0, limit: int = 1000) -> tuple[tuple[int, bytes], ...]:
        return await self._journals.read(journal, after, limit)

    async def close(self) -> None:
        await self.base.client.close()


def connect(url: str) -> MongoStore:
    """The store at this URL; nothing is asked of it before it is used.  Raises ValueError for a URL that cannot be meant."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # an option that is not understood, such as a misspelt tls, is left out else
            return MongoStore(url)
    except (ConfigurationError, ValueError, TypeError, UserWarning) as error:
        raise ValueError(f"FHIR_SERVER_STORE is not a MongoDB URL that can be used: {error}") from None
