"""A demo server that runs as its own process, for tests with clients of other makers and with browsers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.ports import reserved_port
from tests.waiting import HANG, wait_until


class DemoServer(NamedTuple):
    """``environment``: its settings, as environment variables."""

    environment: dict[str, str]

    @property
    def origin(self) -> str:
        return self.environment["FHIR_SERVER_ORIGIN"]

    def command(self, *arguments: str) -> str:
        """Run ``fhir-server`` with these arguments while the server runs, and return its output."""
        command = [sys.executable, "-m", "fhir_server", *arguments]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def demo_server(folder: Path) -> Iterator[DemoServer]:
    """Run a demo server on a SQLite store in this folder."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_SERVER_")}
    port = reserved_port()
    environment = outer | {
        "FHIR_SERVER_MODE": "demo",
        "FHIR_SERVER_ORIGIN": f"http://127.0.0.1:{port}",
        "FHIR_SERVER_STORE": f"sqlite:///{folder}/fhir.sqlite",
    }
    command = [sys.executable, "-m", "fhir_server", "demo", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    made = DemoServer(environment)
    try:
        wait_until(lambda: _answers(made.origin, server), "the demo server answers", every=0.1)
        yield made
    finally:
        server.terminate()
        server.wait(HANG)


def _answers(origin: str, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, f"The demo server ended with {server.returncode}."
    try:
        return httpx.get(f"{origin}/fhir/metadata", timeout=HANG).raise_for_status().is_success
    except httpx.ConnectError:
        return False
