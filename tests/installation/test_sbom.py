"""The SBOM lists what the lock files pin, with hashes and dependencies, and is the same each time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from fhir_server import __version__
from tests.served import ROOT

LOCKS = ("requirements.lock", "requirements-opentelemetry.lock", "requirements-dev.lock", "requirements-build.lock")


def built(lock: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "scripts/build_sbom.py"), str(ROOT / lock)]
    made: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return made


@pytest.mark.parametrize("lock", LOCKS)
def test_sbom_has_each_pin_with_its_hashes(lock: str) -> None:
    made, text = built(lock), (ROOT / lock).read_text(encoding="utf-8")
    pins = {f"pkg:pypi/{name.lower()}@{version}" for name, version in re.findall(r"(?m)^([\w.-]+)==([^\s\\]+)", text)}
    assert pins and {component["purl"] for component in made["components"]} == pins
    assert sum(len(component["hashes"]) for component in made["components"]) == text.count("--hash=sha256:")
    assert made == built(lock) and made["metadata"]["component"]["version"] == __version__


def test_each_package_is_needed_by_the_server_or_by_another() -> None:
    made = built("requirements.lock")
    needed = {ref for each in made["dependencies"] for ref in each["dependsOn"]}
    assert needed == {component["bom-ref"] for component in made["components"]}
    direct = next(each for each in made["dependencies"] if each["ref"].startswith("pkg:pypi/fhir-server@"))["dependsOn"]
    assert any(ref.startswith("pkg:pypi/apsw@") for ref in direct) and not any("annotated-types" in ref for ref in direct)


def test_line_that_is_no_pin_is_an_error() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from build_sbom import read_lock  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    assert read_lock("one==1.0 \\\n    --hash=sha256:" + "a" * 64 + "\n    # via fhir-server (pyproject.toml)\n")["one"]["version"] == "1.0"
    with pytest.raises(ValueError, match="not understood"):
        read_lock("one>=1.0\n")
