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
from benchmarks.load import Request, Stretch, listing, run
from benchmarks.operations import Operation, operations
from benchmarks.servers import Process, control, fhir_server

_TIMEOUT: Final = 60


@dataclass(frozen=True, slots=True)
class Figures:
    """What an operation cost: the least of several stretches for processor time, the median for the rest.

    ``cpu`` and ``aim`` in microseconds per part; ``open`` is the cost with nothing withheld, None where that was not asked.
    """

    name: str
    aim: float | None
    cpu: float
    control: float
    open: float | None
    spread: float
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Result:
    """A run on a store of ``rows`` resources; memory in megabytes: (all resident, without mapped files)."""

    rows: int
    idle: tuple[float, float]
    after: tuple[float, float]
    figures: tuple[Figures, ...]


def measure(rows: int, rounds: int, seconds: int, only: frozenset[str] | None = None) -> Result:
    """Measure every operation (or those named) on a store of ``rows`` resources."""
    store = stores.store_of(rows)
    tokens = asyncio.run(stores.access_tokens(stores.url_of(store)))
    try:
        with fhir_server(stores.url_of(store)) as server:
            idle = server.memory()
            chosen = [one for one in operations(tokens) if only is None or one.name in only]
            figures = tuple(_measured(server, one, rounds, seconds) for one in chosen)
            return Result(rows, idle, server.memory(), figures)
    finally:
        stores.remove(store)


def _measured(server: Process, one: Operation, rounds: int, seconds: int) -> Figures:
    folder = stores.CACHE
    asked = listing(folder / "asked.tsv", one.requests)
    with ExitStack() as stack:
        answers = folder / "answers.msgpack"
        answers.write_bytes(msgspec.msgpack.encode(_recorded(server, one.requests)))
        bare = stack.enter_context(control(answers))
        stretches: list[tuple[Stretch, Stretch, Stretch | None]] = []
        stretch = seconds * one.slowness
        run(server, asked, one.connections, 2 * one.slowness, lives=one.lives)
        for _ in range(rounds):
            plain = run(bare, asked, one.connections, stretch, lives=one.lives)
            limited = run(server, asked, one.connections, stretch, lives=one.lives)
            opened = run(server, listing(folder / "open.tsv", one.open), one.connections, stretch) if one.open else None
            stretches.append((plain, limited, opened))
    limits = [limited for _, limited, _ in stretches]
    cpu = min(limited.cpu for limited in limits)
    figures = Figures(
        one.name,
        one.aim,
        cpu / one.parts,
        min(plain.cpu for plain, _, _ in stretches) / one.parts,
        min(opened.cpu for _, _, opened in stretches if opened) if one.open else None,
        max(limited.cpu for limited in limits) / cpu - 1,
        median(limited.rate for limited in limits),
        median(limited.p50 for limited in limits),
        median(limited.p99 for limited in limits),
    )
    print(f"{one.name}: {figures}", file=sys.stderr)
    return figures


def _recorded(server: Process, requests: Sequence[Request]) -> Answers:
    """The server's own answers to these requests; to writes, one answer for all of a method."""
    answers: Answers = {}
    for one in requests:
        key = f"{one.method} {one.path}" if one.method == "GET" else one.method
        if key not in answers:
            answers[key] = _answer(server, one)
    if "PUT" in answers:
        _, headers, body = answers["PUT"]
        answers |= {"GET": (200, headers, body), "DELETE": (204, [], b"")}
    return answers


def _answer(server: Process, one: Request) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    headers = {"Authorization": f"Bearer {one.token}", "Content-Type": "application/fhir+json"}
    path = one.path + "/recorded" if one.method == "PUT" else one.path
    body = one.body.replace(b"@id@", b"recorded") or None
    asked = urllib.request.Request(server.origin + path, body, headers, method=one.method)
    with urllib.request.urlopen(asked, timeout=_TIMEOUT) as answered:
        return answered.status, [(name.encode(), value.encode()) for name, value in answered.headers.items()], answered.read()
