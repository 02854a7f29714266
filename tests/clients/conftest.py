"""A demo server of its own process, and a token for a backend with all rights, for the tours of clients."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.ports import reserved_port
from tests.waiting import HANG, wait_until


@pytest.fixture(scope="package")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The settings of a demo server that runs meanwhile, as environment variables."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_SERVER_")}
    settings = outer | {
        "FHIR_SERVER_MODE": "demo",
        "FHIR_SERVER_ORIGIN": f"http://127.0.0.1:{reserved_port()}",
        "FHIR_SERVER_STORE": f"sqlite:///{tmp_path_factory.mktemp('store')}/fhir.sqlite",
    }
    origin = settings["FHIR_SERVER_ORIGIN"]
    command = [sys.executable, "-m", "fhir_server", "demo", "--port", origin.rpartition(":")[2]]
    server = subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(origin, server), "the demo server answers", every=0.1)
        yield settings
    finally:
        server.terminate()
        server.wait(HANG)


@pytest.fixture(scope="package")
def backend_token(demo_server: dict[str, str]) -> str:
    """An access token of a backend that may do everything."""
    command = [sys.executable, "-m", "fhir_server", "token", "--client", "demo-backend", "--scope", "system/*.cruds"]
    return subprocess.run(command, env=demo_server, check=True, capture_output=True, text=True).stdout.split()[-1]


def _answers(origin: str, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "the demo server has ended"
    try:
        return httpx.get(f"{origin}/fhir/metadata").status_code == 200
    except httpx.TransportError:
        return False
