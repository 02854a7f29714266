"""How long a request waits for the store: a store that measures, for servers with traces.  Without traces nothing is measured."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from inspect import iscoroutinefunction
from time import perf_counter
from typing import Any, TypeVar, cast

from fhir_server.store import KeyValueStore, Snapshot, Store, Transaction

T = TypeVar("T")


class StoreTime:
    """What one request has asked of the store: the number of calls, and the seconds until they were answered."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0


store_time: ContextVar[StoreTime | None] = ContextVar("store_time", default=None)


async def _timed(call: Awaitable[T]) -> T:
    spent = store_time.get()
    if spent is None:
        return await call
    began = perf_counter()
    try:
        return await call
    finally:
        spent.calls += 1
        spent.seconds += perf_counter() - began


class _TimedMethods:
    """Another object whose coroutine methods are timed."""

    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._target, name)
        if not iscoroutinefunction(member):
            return member
        return lambda *args, **named: _timed(member(*args, **named))


class _TimedStore(_TimedMethods):
    """See :class:`fhir_server.store.Store`."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._store = store
        self.key_values = cast(KeyValueStore, _TimedMethods(store.key_values))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        async with self._store.snapshot() as snapshot:
            yield cast(Snapshot, _TimedMethods(snapshot))

    async def write(self, job: Callable[[Transaction], Awaitable[T]]) -> T:
        return await _timed(self._store.write(job))


def timed(store: Store) -> Store:
    """The same store; its calls add to the :class:`StoreTime` of the request that makes them.

    A write counts from its request to its commit, with the time that it waits for others.
    """
    return cast(Store, _TimedStore(store))
