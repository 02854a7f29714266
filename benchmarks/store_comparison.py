"""Compares MongoDB with SQLite: the same operations on both in turn, and the gain from a second server process."""

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
"""The operations that are also measured with two server processes."""

CPU_PERCENT: Final = 20
"""The share of a core, in percent, for each server process with limited CPU."""


@dataclass(frozen=True, slots=True)
class StoreCost:
    """One operation on both stores.  ``sqlite``, ``mongodb`` and ``mongod`` (the database process) are CPU microseconds per part."""

    name: str
    sqlite: float
    mongodb: float
    mongod: float
    rates: tuple[float, float]
    p50: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ScalingResult:
    """Requests per second of one and of two server processes on the same store.

    ``free``: all processes share the machine.  ``limited``: each server process has :data:`CPU_PERCENT` of a core, so that
    the load and the database have enough.
    """

    name: str
    store: str
    free: tuple[float, float]
    limited: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All measurements of both stores with about ``rows`` resources each."""

    rows: int
    costs: tuple[StoreCost, ...]
    scaling: tuple[ScalingResult, ...]


@dataclass(frozen=True, slots=True)
class _FilledStore:
    """A filled store, the operations on it, and the database process if it has one."""

    name: str
    url: str
    operations: dict[str, Operation]
    database: Process | None = None


def compare(rows: int, rounds: int, seconds: int) -> Comparison:
    """Benchmark both stores with about ``rows`` resources each."""
    with _sqlite(rows) as sqlite, _mongodb(rows) as mongodb:
        beside = tuple(_compare_operations(sqlite, mongodb, rounds, seconds))
        widened = tuple(_measure_scaling(filled, name, seconds) for filled in (sqlite, mongodb) for name in SCALED)
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
    listed = operations(asyncio.run(stores.access_tokens(url)))
    return _FilledStore(name, url, {operation.name: operation for operation in listed}, database)


def _compare_operations(sqlite: _FilledStore, mongodb: _FilledStore, rounds: int, seconds: int) -> Iterator[StoreCost]:
    with fhir_server(sqlite.url) as one, fhir_server(mongodb.url) as other:
        for name in sqlite.operations:
            pairs = [(_run_stretch(one, sqlite, name, seconds), _run_stretch(other, mongodb, name, seconds)) for _ in range(rounds)]
            cost = _store_cost(name, pairs, sqlite.operations[name].parts)
            print(cost, file=sys.stderr)
            yield cost


def _run_stretch(server: Process, filled: _FilledStore, name: str, seconds: int) -> tuple[LoadRun, float]:
    """Run the load once.  Return its result, and the CPU microseconds per request of the database process."""
    operation = filled.operations[name]
    file = write_requests(stores.CACHE / f"{filled.name}.tsv", operation.requests)
    before = filled.database.cpu() if filled.database else 0.0
    factor = operation.slowness ** (3 if filled.database else 1)  # MongoDB needs more time for enough requests
    load_run = run_load(server, file, operation.connections, seconds * factor, lifecycle=operation.lifecycle)
    cpu_seconds = (filled.database.cpu() if filled.database else 0.0) - before
    return load_run, cpu_seconds / load_run.requests * 1e6


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


def _measure_scaling(filled: _FilledStore, name: str, seconds: int) -> ScalingResult:
    operation = filled.operations[name]
    file = write_requests(stores.CACHE / f"{filled.name}.tsv", operation.requests)
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        servers = [stack.enter_context(fhir_server(filled.url, None)) for _ in range(2)]

        def rate(processes: list[Process]) -> float:
            share = operation.connections // len(processes)
            running = [pool.submit(run_load, server, file, share, seconds, core=None) for server in processes]
            return sum(one.result().rate for one in running)

        def rates() -> tuple[float, float]:
            return rate(servers[:1]), rate(servers)

        rate(servers)  # fills the caches of both
        free = rates()
        for server in servers:
            stack.enter_context(limited_cpu(server, CPU_PERCENT))
        return ScalingResult(name, filled.name, free, rates())
