"""MongoDB beside SQLite: the same operations on both, in turn, and what a second server process brings."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks import stores
from benchmarks.load import LoadRun, run_load, write_requests
from benchmarks.operations import Operation, operations
from benchmarks.servers import Process, fhir_server, limited_cpu
from tests.mongo.mongod import ReplicaSet

SCALED: Final = ("read", "search of 50", "create")
"""The operations that are also asked of two server processes at once."""

CPU_PERCENT: Final = 20
"""Percent of a core for each server process that is held back."""


@dataclass(frozen=True, slots=True)
class StoreCost:
    """One operation on both stores; ``sqlite``, ``mongodb`` and ``mongod`` (the database's own) in processor microseconds a part."""

    name: str
    sqlite: float
    mongodb: float
    mongod: float
    rates: tuple[float, float]
    p50: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ScalingResult:
    """Requests a second that one and two server processes on the same store answered: ``free``, all sharing the machine,
    and ``held``, each server with :data:`SHARE` of a core so that neither the load nor the database is short of any."""

    name: str
    store: str
    free: tuple[float, float]
    limited: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    rows: int
    costs: tuple[StoreCost, ...]
    scaling: tuple[ScalingResult, ...]


@dataclass(frozen=True, slots=True)
class _FilledStore:
    """A filled store, the operations on it, and its database's own process if it has one."""

    name: str
    url: str
    operations: dict[str, Operation]
    database: Process | None = None


def compare(rows: int, rounds: int, seconds: int) -> Comparison:
    """Measure both stores with about ``rows`` resources each."""
    with _sqlite(rows) as sqlite, _mongodb(rows) as mongodb:
        beside = tuple(_compare_operations(sqlite, mongodb, rounds, seconds))
        widened = tuple(_measure_scaling(place, name, seconds) for place in (sqlite, mongodb) for name in SCALED)
    return Comparison(rows, beside, widened)


@contextmanager
def _sqlite(rows: int) -> Iterator[_FilledStore]:
    path = stores.copy_of_size(rows)
    try:
        yield _filled_store("SQLite", stores.sqlite_url(path))
    finally:
        stores.remove(path)


@contextmanager
def _mongodb(rows: int) -> Iterator[_FilledStore]:
    replica_set = ReplicaSet()
    try:
        url = replica_set.url.replace("{name}", "benchmarks")
        asyncio.run(stores.fill(url, rows))
        yield _filled_store("MongoDB", url, Process(replica_set.members[0].process.pid, ""))
    finally:
        replica_set.stop()


def _filled_store(name: str, url: str, database: Process | None = None) -> _FilledStore:
    asked = operations(asyncio.run(stores.access_tokens(url)))
    return _FilledStore(name, url, {one.name: one for one in asked}, database)


def _compare_operations(sqlite: _FilledStore, mongodb: _FilledStore, rounds: int, seconds: int) -> Iterator[StoreCost]:
    with fhir_server(sqlite.url) as one, fhir_server(mongodb.url) as other:
        for name in sqlite.operations:
            pairs = [(_run_stretch(one, sqlite, name, seconds), _run_stretch(other, mongodb, name, seconds)) for _ in range(rounds)]
            found = _store_cost(name, pairs, sqlite.operations[name].parts)
            print(found, file=sys.stderr)
            yield found


def _run_stretch(server: Process, place: _FilledStore, name: str, seconds: int) -> tuple[LoadRun, float]:
    """A stretch of load, and what it cost the database's own process a request."""
    asked = place.operations[name]
    listed = write_requests(stores.CACHE / f"{place.name}.tsv", asked.requests)
    before = place.database.cpu() if place.database else 0.0
    longer = asked.slowness ** (3 if place.database else 1)  # few requests become very few where each takes seconds
    stretch = run_load(server, listed, asked.connections, seconds * longer, lives=asked.lifecycle)
    spent = (place.database.cpu() if place.database else 0.0) - before
    return stretch, spent / stretch.requests * 1e6


def _store_cost(name: str, pairs: list[tuple[tuple[LoadRun, float], tuple[LoadRun, float]]], parts: float) -> StoreCost:
    sqlite, mongodb = [pair[0][0] for pair in pairs], [pair[1][0] for pair in pairs]
    return StoreCost(
        name,
        min(one.cpu for one in sqlite) / parts,
        min(one.cpu for one in mongodb) / parts,
        min(pair[1][1] for pair in pairs) / parts,
        (median(one.rate for one in sqlite), median(one.rate for one in mongodb)),
        (median(one.p50 for one in sqlite), median(one.p50 for one in mongodb)),
    )


def _measure_scaling(place: _FilledStore, name: str, seconds: int) -> ScalingResult:
    asked = place.operations[name]
    listed = write_requests(stores.CACHE / f"{place.name}.tsv", asked.requests)
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        servers = [stack.enter_context(fhir_server(place.url, None)) for _ in range(2)]

        def rate(asked_of: list[Process]) -> float:
            share = asked.connections // len(asked_of)
            running = [pool.submit(run_load, server, listed, share, seconds, core=None) for server in asked_of]
            return sum(one.result().rate for one in running)

        def rates() -> tuple[float, float]:
            return rate(servers[:1]), rate(servers)

        rate(servers)  # both have their plans and pages ready
        free = rates()
        for server in servers:
            stack.enter_context(limited_cpu(server, CPU_PERCENT))
        return ScalingResult(name, place.name, free, rates())
