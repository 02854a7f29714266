"""The image recipe: pinned with hashes, an ordinary user, no secret; and the variables that files of ``deploy/`` name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deployment.settings_in_files import named, unknown
from tests.served import ROOT

RECIPE = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
FILES = sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file() and path.parent.name != "secrets")


def faults(recipe: str) -> list[str]:
    """What is wrong in a recipe."""
    steps = [line.strip() for line in re.sub(r"\\\n", " ", recipe).splitlines() if line and not line.startswith("#")]
    final = steps[max(number for number, step in enumerate(steps) if step.startswith("FROM ")) :]
    user = [step.split()[1] for step in final if step.startswith("USER ")]
    found = []
    if not user or user[-1].split(":")[0] in ("0", "root"):
        found.append("it runs as root")
    if not any(step.startswith("HEALTHCHECK ") and "/livez" in step for step in final):
        found.append("it has no health check")
    if not any("ca-certificates" in step for step in final):
        found.append("it cannot check certificates of other systems")
    for step in steps:
        kind, _, rest = step.partition(" ")
        if kind in ("ARG", "ENV") and re.search(r"KEY|TOKEN|PASSWORD|SECRET|FHIR_SERVER_", rest):
            found.append(f"a layer holds {rest}")
        copied = rest.split()[:-1] if kind in ("COPY", "ADD") else []
        if kind == "ADD" or any(name in (".", "*") or (not name.startswith("/") and not _in_context(name)) for name in copied[-1:]):
            found.append(f"it copies more than is named: {rest}")
        for command in re.findall(r"pip install [^&]*", rest):
            if "--require-hashes" not in command and "--no-index" not in command:
                found.append(f"it installs without hashes: {command.strip()}")
            if "--no-deps" not in command:
                found.append(f"it installs what the lock file does not name: {command.strip()}")
    return found


def _in_context(name: str) -> bool:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return f"!{name}" in ignored and (ROOT / name).exists()


def test_image_recipe_has_no_fault() -> None:
    assert faults(RECIPE) == []


@pytest.mark.parametrize(
    ("line", "planted", "fault"),
    [
        ("USER 10001:10001", "", "it runs as root"),
        ("/livez", "/", "it has no health check"),
        ("install --yes --no-install-recommends ca-certificates", "install", "it cannot check certificates of other systems"),
        ("ENV PATH", "ENV FHIR_SERVER_SECRET_KEY=x\nENV PATH", "a layer holds FHIR_SERVER_SECRET_KEY=x"),
        ("COPY ig ig", "COPY . .", "it copies more than is named: . ."),
        (
            " --no-deps --require-hashes --only-binary :all: -r requirements.lock",
            " fastapi",
            "it installs without hashes: pip install --no-cache-dir fastapi",
        ),
        (
            " --no-deps --require-hashes --only-binary :all: -r requirements.lock",
            " --require-hashes -r requirements.lock",
            "it installs what the lock file does not name: pip install --no-cache-dir --require-hashes -r requirements.lock",
        ),
    ],
)
def test_image_check_finds_planted_faults(line: str, planted: str, fault: str) -> None:
    assert line in RECIPE
    assert fault in faults(RECIPE.replace(line, planted))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "deploy")))
def test_deployment_files_name_only_settings_that_exist(path: Path) -> None:
    assert unknown(path.read_text(encoding="utf-8")) == set()


def test_setting_check_finds_an_unknown_variable() -> None:
    assert sum(len(named(path.read_text(encoding="utf-8"))) for path in FILES) > 15
    assert unknown("FHIR_SERVER_STORE_FILE FHIR_SERVER_PORT") == {"FHIR_SERVER_PORT"}
    assert unknown("FHIR_SERVER_POLICY_FILE") == {"FHIR_SERVER_POLICY_FILE"}
