"""Load from wrk on the second core, and what one stretch of it cost the server."""

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
_SETTLE: Final = 0.4  # seconds in which the server writes the rest of its audit journal


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
    """What came of one stretch of load: requests answered, processor microseconds each, requests a second, milliseconds."""

    requests: int
    cpu: float
    rate: float
    p50: float
    p99: float


def run_load(
    process: Process, listed: Path, connections: int, seconds: int, *, lives: bool = False, core: int | None = LOAD_CORE
) -> LoadRun:
    """Send the requests listed in a file (see :func:`listing`) for a while, from one core or (None) from any.

    Raises RuntimeError if any failed.
    """
    before = process.cpu()
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(_SCRIPT), process.origin, "--", str(listed)]
    ended = subprocess.run(
        [*command, "lives"] if lives else command,
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, os.sched_getaffinity(0) if core is None else {core}),
    )
    time.sleep(_SETTLE)
    spent = process.cpu() - before
    line = next(line for line in ended.stdout.splitlines() if line.startswith("RESULT "))
    requests, duration, p50, p99, errors = (int(part) for part in line.split()[1:])
    if errors or not requests:
        raise RuntimeError(f"{errors} of {requests} requests of {listed.name} failed")
    return LoadRun(requests, spent / requests * 1e6, requests / duration * 1e6, p50 / 1000, p99 / 1000)


def write_requests(path: Path, requests: Sequence[BenchmarkRequest]) -> Path:
    """Write requests to a file for wrk; bodies must be of one line."""
    path.write_bytes(b"\n".join(request.line() for request in requests) + b"\n")
    return path
