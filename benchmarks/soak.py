"""Serves at half load for a long time: ``python -m benchmarks.soak --minutes 30``.

A mix of reads, searches, ``$everything``, creates, updates, deletes and transactions is first sent as fast as the server takes it, which
gives its rate; then at half that rate, at times that are fixed before.  A latency counts from the time at which a request was due, so that
a pause of the server is not hidden.  Each minute the program prints a line of the table.

It exits with 1 if a request failed, or if memory *in use* is not flat: what malloc has given out (SQLite, large objects) and the number of
blocks that Python has allocated, by the slope of a straight line through the least values of the minutes after the first sixth.  Resident
memory is printed, too, and has a bound, but no slope decides: it also has free space between objects, which allocators keep, and which
rises for a long time under a load of very different sizes although nothing is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import linear_regression
from typing import Final
from urllib.parse import urlsplit

from benchmarks import stores
from benchmarks.fairness import memory
from benchmarks.load import BenchmarkRequest
from benchmarks.operations import operations
from benchmarks.servers import Process, fhir_server

MEGABYTES_AN_HOUR: Final = 20.0  # 100 bytes left by each of 80 requests a second would be 27
BLOCKS_AN_HOUR: Final = 100_000.0  # one block left by each of 80 requests a second would be 288,000
MEGABYTES: Final = 400.0
_TOKEN: Final = "a token for the metrics"
_ASKED_EVERY: Final = 5.0  # seconds
_LANES: Final = 16
_SATURATION: Final = 30.0  # seconds
_MIX: Final = {
    "read": 6000,
    "search of 50": 2000,
    "$everything of 1,000": 50,
    "create": 1200,
    "update": 450,
    "delete": 290,
    "transaction": 10,
}


@dataclass
class Minute:
    """What was measured in a minute.  Latencies in milliseconds."""

    latencies: list[float] = field(default_factory=list)
    failures: int = 0
    used: list[float] = field(default_factory=list)
    blocks: list[float] = field(default_factory=list)

    def at(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class State:
    """The server at the end of a minute: megabytes without mapped files of it and its processes, and of the store; connections.

    ``used``    megabytes that malloc has given out, ``blocks`` blocks that Python has allocated: the least values in the minute, because
                requests in progress have some
    """

    memory: float
    used: float
    blocks: float
    store: float
    connections: int


class Lane:
    """One connection that sends one request at a time."""

    def __init__(self, origin: str) -> None:
        self._host = urlsplit(origin).hostname or ""
        self._port = urlsplit(origin).port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: BenchmarkRequest) -> tuple[int, str]:
        """Send a request; return its status and its ``Location``.  Raises OSError or EOFError if the connection breaks."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=2**20)
        reader, writer = self._streams
        try:
            writer.write(
                f"{request.method} {request.path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {request.token}\r\n"
                f"Content-Type: application/fhir+json\r\nContent-Length: {len(request.body)}\r\n\r\n".encode()
                + request.body
            )
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            await reader.readexactly(int(fields.get("content-length", "0")))
        except BaseException:
            self.close()
            raise
        if fields.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), fields.get("location", "")

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Soak:
    """The load on one server."""

    def __init__(self, server: Process, store: Path, tokens: dict[str, str]) -> None:
        self._server, self._store = server, store
        self._random = Random(1)
        self._requests: dict[str, Sequence[BenchmarkRequest]] = {}
        for operation in operations(tokens):
            self._requests[operation.name.split(",")[0] if "transaction" in operation.name else operation.name] = operation.requests
        self._update = self._requests["create, read, update, delete"][1]
        self._token = tokens["backend"]
        self._created: list[str] = []
        self._minute = Minute()

    def _next(self) -> BenchmarkRequest:
        (name,) = self._random.choices(list(_MIX), list(_MIX.values()))
        if name in ("update", "delete"):
            if len(self._created) < 100:
                name = "create"
            else:
                index = self._random.randrange(len(self._created))
                id = self._created[index]
                if name == "delete":
                    self._created[index] = self._created[-1]
                    self._created.pop()
                    return BenchmarkRequest("DELETE", f"/fhir/Observation/{id}", self._token)
                body = self._update.body.replace(b"@id@", id.encode())
                return BenchmarkRequest("PUT", f"/fhir/Observation/{id}", self._token, body)
        return self._random.choice(self._requests[name])

    async def _lane(self, due: Iterator[float]) -> None:
        """Send requests when they are due, until there are no more."""
        lane = Lane(self._server.origin)
        for at in due:
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            request = self._next()
            try:
                status, location = await lane.send(request)
            except (OSError, EOFError):
                status, location = 0, ""
            if status // 100 != 2 and not (status in (404, 410) and request.method in ("PUT", "DELETE")):
                self._minute.failures += 1
            elif status == 201 and request.path == "/fhir/Observation":
                self._created.append(location.split("/")[-3])
            self._minute.latencies.append((time.perf_counter() - at) * 1000)
        lane.close()

    async def saturate(self) -> float:
        """Send requests as fast as they are answered; return how many a second."""
        end = time.perf_counter() + _SATURATION

        def now() -> Iterator[float]:
            while (at := time.perf_counter()) < end:
                yield at

        began, self._minute = time.perf_counter(), Minute()
        await asyncio.gather(*[self._lane(now()) for _ in range(_LANES)])
        return len(self._minute.latencies) / (time.perf_counter() - began)

    async def run(self, rate: float, minutes: int) -> list[tuple[Minute, State]]:
        """Send ``rate`` requests a second; return what was measured in each minute, and print it."""
        began = time.perf_counter()

        def scheduled() -> Iterator[float]:
            for number in range(int(rate * 60 * minutes)):
                yield began + number / rate

        due = scheduled()  # the lanes share it
        self._minute = Minute()
        lanes = [asyncio.create_task(self._lane(due)) for _ in range(_LANES)]
        measured: list[tuple[Minute, State]] = []
        asking = asyncio.create_task(self._ask_for_memory())
        for number in range(minutes):
            await asyncio.sleep(max(0.0, began + 60 * (number + 1) - time.perf_counter()))
            minute, self._minute = self._minute, Minute()
            measured.append((minute, self.state(minute)))
            print(line(number + 1, *measured[-1]), flush=True)
        asking.cancel()
        await asyncio.gather(*lanes)
        return measured

    async def _ask_for_memory(self) -> None:
        while True:
            await asyncio.sleep(_ASKED_EVERY)
            try:
                text = await asyncio.to_thread(metrics, self._server.origin)
            except OSError:
                continue
            self._minute.used.append(text["fhir_server_malloc_used_bytes"] / 2**20)
            self._minute.blocks.append(text["fhir_server_python_blocks"])

    def state(self, minute: Minute) -> State:
        """Raises RuntimeError if the server has not said in this minute how much memory is in use."""
        if not minute.used:
            raise RuntimeError("the server does not answer at /metrics")
        files = [self._store.with_name(self._store.name + suffix) for suffix in ("", "-wal")]
        return State(
            memory(self._server.pid),
            min(minute.used),
            min(minute.blocks),
            sum(file.stat().st_size for file in files if file.exists()) / 2**20,
            connections(self._server.pid),
        )


def metrics(origin: str) -> dict[str, float]:
    """The metrics without labels."""
    request = urllib.request.Request(f"{origin}/metrics", headers={"Authorization": f"Bearer {_TOKEN}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        samples = [line.split() for line in answer.read().decode().splitlines() if line[:1].isalpha() and "{" not in line]
    return {name: float(value) for name, value in samples}


def connections(pid: int) -> int:
    """How many sockets the process has open."""
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += str(link.readlink()).startswith("socket:")
        except OSError:  # closed meanwhile
            continue
    return found


HEADER: Final = (
    "| minute | requests | failed | p50 ms | p95 ms | p99 ms | longest ms | memory MB | in use MB | blocks | store MB | sockets |\n|"
    + ("---:|" * 12)
)


def line(number: int, minute: Minute, state: State) -> str:
    """A line of the table."""
    times = " | ".join(f"{minute.at(share):.1f}" for share in (0.5, 0.95, 0.99, 1.0))
    rest = f"{state.memory:.1f} | {state.used:.1f} | {state.blocks:,.0f} | {state.store:.0f} | {state.connections}"
    return f"| {number} | {len(minute.latencies):,} | {minute.failures} | {times} | {rest} |"


def slope(values: Sequence[float]) -> float:
    """The rise in an hour, by least squares over the minutes after the first sixth."""
    skipped = len(values) // 6
    rest = values[skipped:]
    return linear_regression(range(len(rest)), rest).slope * 60 if len(rest) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=30, choices=range(2, 56), metavar="2..55", help="access tokens live for an hour")
    parser.add_argument("--rows", type=int, default=10_000, help="number of resources in the store")
    parser.add_argument("--rate", type=float, help="requests a second, instead of half of what the server takes now")
    options = parser.parse_args()
    copy = stores.copy_of_size(options.rows)
    store = copy.rename(copy.with_name(f"soak-{os.getpid()}.sqlite"))
    tokens = asyncio.run(stores.access_tokens(stores.sqlite_url(store)))
    try:
        with fhir_server(stores.sqlite_url(store), None, _TOKEN) as server:
            soak = Soak(server, store, tokens)
            highest = asyncio.run(soak.saturate())
            rate = options.rate or highest / 2
            print(f"At saturation {highest:.0f} requests a second; now {rate:.0f}.\n\n{HEADER}", flush=True)
            measured = asyncio.run(soak.run(rate, options.minutes))
    finally:
        stores.remove(store)
    states = [state for _, state in measured]
    used, blocks = slope([state.used for state in states]), slope([state.blocks for state in states])
    resident, most = slope([state.memory for state in states]), max(state.memory for state in states)
    failures = sum(minute.failures for minute, _ in measured)
    print(
        f"\nIn use: {used:+.1f} MB an hour (at most {MEGABYTES_AN_HOUR:.0f}), {blocks:+,.0f} blocks (at most {BLOCKS_AN_HOUR:,.0f})."
        f"\nMemory without mapped files: {most:.0f} MB (at most {MEGABYTES:.0f}), {resident:+.1f} MB an hour. Failed: {failures}."
    )
    sys.exit(int(not is_flat(used, blocks) or most > MEGABYTES or failures > 0))


def is_flat(used: float, blocks: float) -> bool:
    """Whether nothing is kept, by the slopes in megabytes and in blocks an hour."""
    return used <= MEGABYTES_AN_HOUR and blocks <= BLOCKS_AN_HOUR


if __name__ == "__main__":
    main()
