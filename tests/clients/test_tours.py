"""FHIR clients for Python and JavaScript, as they are shipped, against a demo server: every call that R4 allows works.

``make test-all`` installs the clients (``scripts/clients.sh``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIBRARIES = HERE.parents[1] / ".cache/clients"

# The Medplum client asks for a WebSocket when it is imported, which Node.js has by default from version 22.
NODE = ("node", "--experimental-websocket")
_MERGES = "fhirpy patches with a part of the resource as application/json; R4 knows JSON Patch, XML Patch and FHIRPath Patch"

TOURS = {
    "fhirpy": ((sys.executable, "python/fhirpy_tour.py"), 40),
    "fhirclient": ((sys.executable, "python/fhirclient_tour.py"), 18),
    "fhir-kit-client": ((*NODE, "node/fhir_kit_client.mjs"), 35),
    "medplum": ((*NODE, "node/medplum.mjs"), 25),
    "smart-client": ((*NODE, "node/smart_client.mjs"), 15),
}
"""The command of each tour, and how many lines it prints at least."""

REFUSED = {
    "fhirpy": {
        **dict.fromkeys(("save of fields", "resource.patch", "client.patch", "reference.patch", "search.patch"), _MERGES),
        "search.get_or_create": "a conditional create sends its criteria in If-None-Exist, fhirpy in the URL",
    }
}
"""Calls that are answered with an error, and why."""


@pytest.mark.slow
@pytest.mark.parametrize("name", TOURS)
def test_each_call_that_r4_allows_works(name: str, demo_server: dict[str, str], backend_token: str) -> None:
    command, least = TOURS[name]
    tour = subprocess.run(
        [*command[:-1], str(HERE / command[-1]), f"{demo_server['FHIR_SERVER_ORIGIN']}/fhir", backend_token],
        env=os.environ | {"PYTHONPATH": str(LIBRARIES)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tour.returncode == 0, tour.stderr[-2000:]
    lines = [line for line in tour.stdout.splitlines() if line.startswith(("ok ", "failed "))]
    assert len(lines) >= least, tour.stdout
    failed = {line.removeprefix("failed ").partition(":")[0]: line for line in lines if line.startswith("failed ")}
    assert failed.keys() == REFUSED.get(name, {}).keys(), "\n".join(failed.values())
