"""FHIR clients for Java, Python and JavaScript, as they are shipped, against a demo server: every call that R4 allows works.

``make test-all`` installs what they need (``scripts/java-client.sh``, ``scripts/clients.sh``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo_server import DemoServer, demo_server
from tests.served import ROOT

HERE = Path(__file__).parent
JAVA, PYTHON = ROOT / ".cache/hapi", ROOT / ".cache/clients"

# The Medplum client asks for a WebSocket when it is imported, which Node.js has by default from version 22.
NODE = ("node", "--experimental-websocket")
_MERGES = "fhirpy patches with a part of the resource as application/json; R4 knows JSON Patch, XML Patch and FHIRPath Patch"

TOURS = {
    "hapi": (("java", "-cp", f"{JAVA}/*", "hapi/Tour.java"), 60),
    "fhirpy": ((sys.executable, "python/fhirpy_tour.py"), 40),
    "fhirclient": ((sys.executable, "python/fhirclient_tour.py"), 18),
    "fhir-kit-client": ((*NODE, "node/fhir_kit_client.mjs"), 35),
    "medplum": ((*NODE, "node/medplum.mjs"), 25),
    "smart-client": ((*NODE, "node/smart_client.mjs"), 15),
}
"""The command of each tour, and how many lines it prints at least."""

REFUSED = {
    "hapi": {"transaction-with-resources": "HAPI leaves out Bundle.entry.request.url, which R4 requires (bdl-3, cardinality 1..1)"},
    "fhirpy": {
        **dict.fromkeys(("save of fields", "resource.patch", "client.patch", "reference.patch", "search.patch"), _MERGES),
        "search.get_or_create": "a conditional create sends its criteria in If-None-Exist, fhirpy in the URL",
    },
}
"""Calls that are answered with an error, and why."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    with demo_server(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("name", TOURS)
def test_each_call_that_r4_allows_works(name: str, demo: DemoServer) -> None:
    missing = [str(folder) for folder in (JAVA, PYTHON, HERE / "node/node_modules") if not folder.is_dir()]
    assert missing == [], "The clients are missing: `make test-all` installs them."
    (*program, script), least = TOURS[name]
    token = demo.command("token", "--client", "demo-backend", "--scope", "system/*.cruds").split()[-1]
    tour = subprocess.run(
        [*program, str(HERE / script), f"{demo.origin}/fhir", token],
        env=os.environ | {"PYTHONPATH": str(PYTHON)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in tour.stdout.splitlines() if line.startswith(("ok ", "failed "))]
    assert len(lines) >= least, tour.stderr[-2000:]
    failed = {line.removeprefix("failed ").partition(":")[0]: line for line in lines if line.startswith("failed ")}
    assert failed.keys() == REFUSED.get(name, {}).keys(), "\n".join(failed.values())
