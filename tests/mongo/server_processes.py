"""Starts server processes as an operator would, for tests that kill them or run several on one database."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx

from tests.mongo.mongod import die_with_parent
from tests.ports import reserved_port
from tests.served import KEY, NOON, ROOT
from tests.waiting import HANG, wait_until

ORIGIN = "http://127.0.0.1:8000"


class Process:
    """Runs ``fhir-server serve`` on the store ``url``.

    ``fault`` is Python code that runs in the process first; ``changed`` are settings, without their prefix.
    """

    def __init__(self, url: str, fault: str = "", **changed: str) -> None:
        self.url, self.port = url, reserved_port()
        outer = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_SERVER_")}
        settings = {"MODE": "test", "ORIGIN": ORIGIN, "STORE": url, "SECRET_KEY": KEY, "CLOCK": NOON} | changed
        program = f"{fault}\nimport sys\nfrom fhir_server.cli import main\nmain(sys.argv[1:])"
        command = [sys.executable, "-c", program, "serve", "--create-store", "--port", str(self.port)]
        settings = {f"FHIR_SERVER_{name}": value for name, value in settings.items() if value}
        self.process = subprocess.Popen(command, env=outer | settings, cwd=ROOT, preexec_fn=die_with_parent)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        """Base URL of the FHIR API."""
        return f"{self.address}/fhir"

    def await_answer(self) -> None:
        """Wait until the server answers.  Raises AssertionError if the process ends or does not answer in time."""
        wait_until(self._answers, "the server answers", every=0.05)

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the server ended"
        try:
            return httpx.get(f"{self.base}/metadata", timeout=HANG).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """Kill the process at once, as a power failure would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop the process as an operator would."""
        self.process.terminate()
        self.process.wait(HANG)
