"""Starts server processes on the first core, and measures their CPU time and memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.stores import ROOT, settings

SERVER_CORE: Final = 0
LOAD_CORE: Final = 1
_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A running server: its process id and its origin."""

    pid: int
    origin: str

    def cpu(self) -> float:
        """Return the CPU seconds used so far by all threads, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory(self) -> tuple[float, float]:
        """Return the resident megabytes: all, and without mapped files (the pages of a mapped store are in the page cache)."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        sizes = {name: value for name, _, value in (line.partition(":") for line in lines)}
        return tuple(int(sizes[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))  # type: ignore[return-value]


@contextmanager
def fhir_server(store: str, core: int | None = SERVER_CORE, metrics_token: str = "", slices: Path | None = None) -> Iterator[Process]:
    """``fhir-server serve`` on the store at this URL, one worker, on one core or (None) on any.

    ``metrics_token``  it has metrics, which this token opens
    ``slices``         where it reports the long steps of its event loop
    """
    port = _free_port()
    chosen = settings(store, port)
    environment = {
        "FHIR_SERVER_STORE": chosen.store,
        "FHIR_SERVER_ORIGIN": chosen.origin,
        "FHIR_SERVER_MODE": chosen.mode,
        "FHIR_SERVER_SECRET_KEY": chosen.secret_key,
    }
    if metrics_token:
        environment["FHIR_SERVER_METRICS_TOKEN"] = metrics_token
    if slices:
        environment["BENCHMARKS_SLICES"] = str(slices)
    program = "benchmarks.slices" if slices else "fhir_server"
    with _running([program, "serve", "--port", str(port)], environment, port, "/fhir/metadata", core) as process:
        yield process


@contextmanager
def control(answers: Path) -> Iterator[Process]:
    """The ASGI application that returns these responses from memory, in the same web server with the same settings."""
    port = _free_port()
    command = ["uvicorn", "benchmarks.control:app", "--factory", "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    quiet = ["--no-access-log", "--no-server-header", "--no-date-header", "--log-level", "warning"]
    with _running([*command, *quiet], {"BENCHMARKS_ANSWERS": str(answers)}, port, "/") as process:
        yield process


@contextmanager
def limited_cpu(process: Process, percent: int) -> Iterator[None]:
    """Limit the process to this share of a core while the context is open."""
    holding = subprocess.Popen(["cpulimit", "-q", "-p", str(process.pid), "-l", str(percent)])
    try:
        yield
    finally:
        holding.terminate()
        holding.wait()
        os.kill(process.pid, signal.SIGCONT)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def _running(module: list[str], environment: Mapping[str, str], port: int, ready: str, core: int | None = SERVER_CORE) -> Iterator[Process]:
    origin = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=ROOT,
        env={**os.environ, **environment},
        preexec_fn=lambda: os.sched_setaffinity(0, os.sched_getaffinity(0) if core is None else {core}),
    )
    try:
        _wait(process, origin + ready)
        yield Process(process.pid, origin)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the server exited with status {process.returncode} before it responded")
        try:
            urllib.request.urlopen(address).read()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"no response from {address}")
