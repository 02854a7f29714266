"""Measures every operation against the server and the control in turn, so that noise affects both."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

import msgspec

from benchmarks import stores
from benchmarks.control import Answers
from benchmarks.load import BenchmarkRequest, LoadRun, run_load, write_requests
from benchmarks.operations import Operation, operations
from benchmarks.servers import Process, control, fhir_server

_TIMEOUT: Final = 60


@dataclass(frozen=True, slots=True)
class OperationCost:
    """The cost of an operation: the lowest CPU time of several runs, the median of the other values.

    ``cpu`` and ``target`` in microseconds per part; ``unrestricted`` is the cost with nothing withheld, None if not measured.
    """

    name: str
    target: float | None
    cpu: float
    control: float
    unrestricted: float | None
    spread: float
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """The results for a store of ``rows`` resources.  Memory in megabytes: (all resident, without mapped files)."""

    rows: int
    idle: tuple[float, float]
    after: tuple[float, float]
    figures: tuple[OperationCost, ...]


def measure(rows: int, rounds: int, seconds: int, only: frozenset[str] | None = None) -> BenchmarkResult:
    """Benchmark every operation, or those in ``only``, on a store of ``rows`` resources."""
    store = stores.copy_of_size(rows)
    tokens = asyncio.run(stores.access_tokens(stores.sqlite_url(store)))
    try:
        with fhir_server(stores.sqlite_url(store)) as server:
            idle = server.memory()
            chosen = [one for one in operations(tokens) if only is None or one.name in only]
            figures = tuple(_measure_operation(server, one, rounds, seconds) for one in chosen)
            return BenchmarkResult(rows, idle, server.memory(), figures)
    finally:
        stores.remove(store)


def _measure_operation(server: Process, one: Operation, rounds: int, seconds: int) -> OperationCost:
    folder = stores.CACHE
    requests = write_requests(folder / "requests.tsv", one.requests)
    with ExitStack() as stack:
        answers = folder / "answers.msgpack"
        answers.write_bytes(msgspec.msgpack.encode(_record_answers(server, one.requests)))
        bare = stack.enter_context(control(answers))
        runs: list[tuple[LoadRun, LoadRun, LoadRun | None]] = []
        duration = seconds * one.slowness
        run_load(server, requests, one.connections, 2 * one.slowness, lifecycle=one.lifecycle)
        for _ in range(rounds):
            control_run = run_load(bare, requests, one.connections, duration, lifecycle=one.lifecycle)
            server_run = run_load(server, requests, one.connections, duration, lifecycle=one.lifecycle)
            unrestricted = (
                run_load(server, write_requests(folder / "unrestricted.tsv", one.unrestricted), one.connections, duration)
                if one.unrestricted
                else None
            )
            runs.append((control_run, server_run, unrestricted))
    server_runs = [server_run for _, server_run, _ in runs]
    cpu = min(server_run.cpu for server_run in server_runs)
    figures = OperationCost(
        one.name,
        one.target,
        cpu / one.parts,
        min(control_run.cpu for control_run, _, _ in runs) / one.parts,
        min(unrestricted.cpu for _, _, unrestricted in runs if unrestricted) if one.unrestricted else None,
        max(server_run.cpu for server_run in server_runs) / cpu - 1,
        median(server_run.rate for server_run in server_runs),
        median(server_run.p50 for server_run in server_runs),
        median(server_run.p99 for server_run in server_runs),
    )
    print(f"{one.name}: {figures}", file=sys.stderr)
    return figures


def _record_answers(server: Process, requests: Sequence[BenchmarkRequest]) -> Answers:
    """Return the server's responses to these requests; for writes, one response for each method."""
    answers: Answers = {}
    for one in requests:
        key = f"{one.method} {one.path}" if one.method == "GET" else one.method
        if key not in answers:
            answers[key] = _fetch(server, one)
    if "PUT" in answers:
        _, headers, body = answers["PUT"]
        answers |= {"GET": (200, headers, body), "DELETE": (204, [], b"")}
    return answers


def _fetch(server: Process, one: BenchmarkRequest) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    headers = {"Authorization": f"Bearer {one.token}", "Content-Type": "application/fhir+json"}
    path = one.path + "/recorded" if one.method == "PUT" else one.path
    body = one.body.replace(b"@id@", b"recorded") or None
    request = urllib.request.Request(server.origin + path, body, headers, method=one.method)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        return response.status, [(name.encode(), value.encode()) for name, value in response.headers.items()], response.read()
