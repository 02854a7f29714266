"""HAPI FHIR's Java client 7.6.1, as it is shipped and with its strict parser, against a demo server: every call that R4 allows works.

Needs Java and Maven, and the client's packages; a machine without them skips the tour.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.ports import reserved_port
from tests.waiting import HANG, wait_until

HERE = Path(__file__).parent / "hapi"
REFUSED = {
    "transaction-with-resources": "HAPI leaves out Bundle.entry.request.url, which R4 requires (bdl-3, cardinality 1..1)",
}
"""Calls that are answered with an error, and why."""


@pytest.fixture(scope="module")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The client's packages, as Maven finds or fetches them."""
    if not (shutil.which("java") and shutil.which("javac") and shutil.which("mvn")):
        pytest.skip("needs Java and Maven")
    found = tmp_path_factory.mktemp("maven") / "classpath"
    command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:build-classpath", f"-Dmdep.outputFile={found}"]
    for offline in (["-o"], []):
        if subprocess.run([*command, *offline], capture_output=True, check=False).returncode == 0:
            return found.read_text().strip()
    pytest.skip("the packages of HAPI's client are not at hand")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
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


def _answers(origin: str, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "the demo server has ended"
    try:
        return httpx.get(f"{origin}/fhir/metadata").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_each_call_that_r4_allows_works_with_hapis_client(classpath: str, environment: dict[str, str]) -> None:
    token = subprocess.run(
        [sys.executable, "-m", "fhir_server", "token", "--client", "demo-backend", "--scope", "system/*.cruds"],
        env=environment, check=True, capture_output=True, text=True,
    ).stdout.split()[-1]  # fmt: skip
    command = ["java", "-cp", classpath, str(HERE / "Tour.java"), f"{environment['FHIR_SERVER_ORIGIN']}/fhir", token]
    tour = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in tour.stdout.splitlines() if line.startswith(("ok ", "failed "))]
    assert len(lines) > 60, tour.stderr
    failed = {line.split(" ", 1)[1].partition(":")[0]: line for line in lines if line.startswith("failed ")}
    assert failed.keys() == REFUSED.keys(), "\n".join(failed.values())
