"""Generates load with wrk on the second core, and measures what it costs the server."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.servers import LOAD_CORE, Process

_SCRIPT: Final = Path(__file__).with_name("load.lua")
_SETTLE: Final = 0.4  # seconds in which the server writes the rest of its audit log


@dataclass(frozen=True, slots=True)
class BenchmarkRequest:
    """One request to send.  ``path`` starts at the origin; ``token`` is a bearer token."""

    method: str
    path: str
    token: str
    body: bytes = b""

    def line(self) -> bytes:
        return b"\t".join((self.method.encode(), self.token.encode(), self.path.encode(), self.body))


@dataclass(frozen=True, slots=True)
class LoadRun:
    """The result of one run of load: number of requests, CPU microseconds per request, requests per second, latencies in ms."""

    requests: int
    cpu: float
    rate: float
    p50: float
    p99: float


def run_load(
    process: Process, file: Path, connections: int, seconds: int, *, lifecycle: bool = False, core: int | None = LOAD_CORE
) -> LoadRun:
    """Send the requests in a file (see :func:`write_requests`) for ``seconds``, from one core or (None) from any.

    Raises RuntimeError if any failed.
    """
    before = process.cpu()
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(_SCRIPT), process.origin, "--", str(file)]
    finished = subprocess.run(
        [*command, "lifecycle"] if lifecycle else command,
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, os.sched_getaffinity(0) if core is None else {core}),
    )
    time.sleep(_SETTLE)
    cpu_seconds = process.cpu() - before
    line = next(line for line in finished.stdout.splitlines() if line.startswith("RESULT "))
    requests, duration, p50, p99, errors = (int(part) for part in line.split()[1:])
    if errors or not requests:
        raise RuntimeError(f"{errors} of {requests} requests of {file.name} failed")
    return LoadRun(requests, cpu_seconds / requests * 1e6, requests / duration * 1e6, p50 / 1000, p99 / 1000)


def write_requests(path: Path, requests: Sequence[BenchmarkRequest]) -> Path:
    """Write requests to a file for wrk.  A body must not contain a line break."""
    path.write_bytes(b"\n".join(request.line() for request in requests) + b"\n")
    return path
