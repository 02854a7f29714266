"""One run: servers up, every operation against the server and the control in turn, so that noise falls on both."""

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
    """What an operation cost: the least of several stretches for processor time, the median for the rest.

    ``cpu`` and ``aim`` in microseconds per part; ``open`` is the cost with nothing withheld, None where that was not asked.
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
    """A run on a store of ``rows`` resources; memory in megabytes: (all resident, without mapped files)."""

    rows: int
    idle: tuple[float, float]
    after: tuple[float, float]
    figures: tuple[OperationCost, ...]


def measure(rows: int, rounds: int, seconds: int, only: frozenset[str] | None = None) -> BenchmarkResult:
    """Measure every operation (or those named) on a store of ``rows`` resources."""
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
    asked = write_requests(folder / "asked.tsv", one.requests)
    with ExitStack() as stack:
        answers = folder / "answers.msgpack"
        answers.write_bytes(msgspec.msgpack.encode(_record_answers(server, one.requests)))
        bare = stack.enter_context(control(answers))
        stretches: list[tuple[LoadRun, LoadRun, LoadRun | None]] = []
        stretch = seconds * one.slowness
        run_load(server, asked, one.connections, 2 * one.slowness, lives=one.lifecycle)
        for _ in range(rounds):
            plain = run_load(bare, asked, one.connections, stretch, lives=one.lifecycle)
            limited = run_load(server, asked, one.connections, stretch, lives=one.lifecycle)
            opened = (
                run_load(server, write_requests(folder / "open.tsv", one.unrestricted), one.connections, stretch)
                if one.unrestricted
                else None
            )
            stretches.append((plain, limited, opened))
    limits = [limited for _, limited, _ in stretches]
    cpu = min(limited.cpu for limited in limits)
    figures = OperationCost(
        one.name,
        one.target,
        cpu / one.parts,
        min(plain.cpu for plain, _, _ in stretches) / one.parts,
        min(opened.cpu for _, _, opened in stretches if opened) if one.unrestricted else None,
        max(limited.cpu for limited in limits) / cpu - 1,
        median(limited.rate for limited in limits),
        median(limited.p50 for limited in limits),
        median(limited.p99 for limited in limits),
    )
    print(f"{one.name}: {figures}", file=sys.stderr)
    return figures


def _record_answers(server: Process, requests: Sequence[BenchmarkRequest]) -> Answers:
    """The server's own answers to these requests; to writes, one answer for all of a method."""
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
    asked = urllib.request.Request(server.origin + path, body, headers, method=one.method)
    with urllib.request.urlopen(asked, timeout=_TIMEOUT) as answered:
        return answered.status, [(name.encode(), value.encode()) for name, value in answered.headers.items()], answered.read()
