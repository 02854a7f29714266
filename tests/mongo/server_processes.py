"""Starts server processes as an operator does, for tests that kill them or run several on one database."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import httpx

from tests.mongo.mongod import die_with_parent
from tests.served import KEY, NOON, ROOT

ORIGIN = "http://127.0.0.1:8000"
_PATIENCE = 60.0  # seconds in which a process must answer


class Process:
    """``fhir-server serve`` on the store ``url``; ``fault`` is Python that is run in it before it starts."""

    def __init__(self, url: str, fault: str = "") -> None:
        self.port = _free_port()
        outer = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_SERVER_")}
        settings = {"MODE": "test", "ORIGIN": ORIGIN, "STORE": url, "SECRET_KEY": KEY, "CLOCK": NOON}
        program = f"{fault}\nimport sys\nfrom fhir_server.cli import main\nmain(sys.argv[1:])"
        command = [sys.executable, "-c", program, "serve", "--port", str(self.port)]
        settings = {f"FHIR_SERVER_{name}": value for name, value in settings.items()}
        self.process = subprocess.Popen(command, env=outer | settings, cwd=ROOT, preexec_fn=die_with_parent)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        """Of the FHIR API."""
        return f"{self.address}/fhir"

    def await_answer(self) -> None:
        """Raises AssertionError if the process ends, or is silent for long."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, "the server ended"
            try:
                if httpx.get(f"{self.base}/metadata", timeout=1).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        """As a power cut would end it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As an operator ends it."""
        self.process.terminate()
        self.process.wait(_PATIENCE)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
