"""Runs a server as an operator does, with settings of a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.mongo.mongod import die_with_parent
from tests.ports import reserved_port
from tests.served import KEY, NOON, ROOT
from tests.waiting import HANG


@contextmanager
def serving(folder: Path, environment: Mapping[str, str] | None = None, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server with two worker processes (or ``WORKERS``), and its URL.  It may fail to start."""
    port = reserved_port()
    workers = settings.pop("WORKERS", "2")
    values = {"MODE": "test", "STORE": f"sqlite:///{folder / 'fhir.sqlite'}", "SECRET_KEY": KEY, "CLOCK": NOON} | settings
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("FHIR_SERVER_", "OTEL_"))}
    command = [sys.executable, "-m", "fhir_server", "serve", "--create-store", "--workers", workers, "--port", str(port)]
    env = outer | dict(environment or {}) | {f"FHIR_SERVER_{name}": value for name, value in values.items()}
    with subprocess.Popen(command, env=env, cwd=ROOT, preexec_fn=die_with_parent, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=HANG)


def answers(process: subprocess.Popen[str], url: str) -> bool:
    assert process.poll() is None, "the server ended"
    try:
        return httpx.get(url, timeout=HANG).status_code == 200
    except httpx.TransportError:
        return False
