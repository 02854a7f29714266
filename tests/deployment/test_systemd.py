"""The systemd unit of ``deploy/``: systemd accepts it, and its exposure is as low as the server's needs allow."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fhir_server.cli.serve import _uvicorn_options
from fhir_server.settings import Settings
from tests.deployment.proxies import changed

ROOT = Path(__file__).parents[2]
UNIT = (ROOT / "deploy/systemd/fhir-server.service").read_text(encoding="utf-8")
EXPOSURE = 15  # tenths; what remains is the network, which the server is for, and /proc


def findings(text: str, folder: Path) -> str:
    """What ``systemd-analyze`` finds in a unit whose program exists, and that its exposure is above the limit."""
    unit = folder / "fhir-server.service"
    program = folder / "fhir-server"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    unit.write_text(changed(text, [(r"ExecStart=\S+", f"ExecStart={program}")]), encoding="utf-8")
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}", unit]
    rated = subprocess.run(command, capture_output=True, text=True, check=False)
    return verified.stderr + (rated.stdout[-400:] + rated.stderr if rated.returncode else "")


def test_systemd_accepts_the_unit_with_low_exposure(tmp_path: Path) -> None:
    assert findings(UNIT, tmp_path) == ""


@pytest.mark.parametrize(
    ("line", "planted"),
    [("KillMode=mixed", "KillMode=some"), ("UMask=0077", "UMaks=0077"), ("SystemCallFilter=.*", ""), ("CapabilityBoundingSet=", "")],
)
def test_unit_check_finds_planted_faults(line: str, planted: str, tmp_path: Path) -> None:
    assert findings(changed(UNIT, [(line, planted)]), tmp_path)


def test_unit_leaves_time_and_files_for_the_servers_limits() -> None:
    lines = dict(re.findall(r"^(\w+)=(\d+)$", UNIT, re.MULTILINE))
    assert int(lines["TimeoutStopSec"]) > _uvicorn_options("127.0.0.1", 80)["timeout_graceful_shutdown"] + 20
    assert int(lines["LimitNOFILE"]) > Settings().max_connections + 1000
