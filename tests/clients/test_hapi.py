"""HAPI FHIR's Java client 7.6.1, as it is shipped and with its strict parser, against a demo server: every call that R4 allows works.

Needs Java and the client's packages, which ``make test-all`` installs (``scripts/java-client.sh``).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo_server import DemoServer, demo_server
from tests.served import ROOT

HERE = Path(__file__).parent / "hapi"
PACKAGES = ROOT / ".cache" / "hapi"
REFUSED = {
    "transaction-with-resources": "HAPI leaves out Bundle.entry.request.url, which R4 requires (bdl-3, cardinality 1..1)",
}
"""Calls that are answered with an error, and why."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    with demo_server(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.mark.slow
def test_each_call_that_r4_allows_works_with_hapis_client(demo: DemoServer) -> None:
    assert shutil.which("javac") and PACKAGES.is_dir(), "Java or the client's packages are missing: `make test-all` installs them."
    token = demo.command("token", "--client", "demo-backend", "--scope", "system/*.cruds").split()[-1]
    command = ["java", "-cp", f"{PACKAGES}/*", str(HERE / "Tour.java"), f"{demo.origin}/fhir", token]
    tour = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in tour.stdout.splitlines() if line.startswith(("ok ", "failed "))]
    assert len(lines) > 60, tour.stderr
    failed = {line.split(" ", 1)[1].partition(":")[0]: line for line in lines if line.startswith("failed ")}
    assert failed.keys() == REFUSED.keys(), "\n".join(failed.values())
