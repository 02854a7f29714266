"""Checks of the project itself: documented settings and commands, file sizes, no unfinished marks, lazy imports."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fhir_server import settings as settings_module
from fhir_server.cli import base as cli_base
from fhir_server.cli import main
from fhir_server.settings import FIELDS, Settings

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "fhir_server").rglob("*.py"))
# Files with more than 400 lines, with the reason.
LONG: dict[str, str] = {}


def test_secret_settings_can_be_read_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("k" * 40 + "\n", encoding="utf-8")
    settings = Settings.from_environment({"FHIR_SERVER_SECRET_KEY_FILE": str(secret), "FHIR_SERVER_FORMER_SECRET_KEY_FILE": str(secret)})
    assert settings.secret_key == settings.former_secret_key == "k" * 40
    secret.write_text("mongodb://u:p@db/fhir", encoding="utf-8")
    assert Settings.from_environment({"FHIR_SERVER_STORE_FILE": str(secret)}).store == "mongodb://u:p@db/fhir"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FHIR_SERVER_SECRET_KEY_FILE": "/missing/file"}, "cannot be read"),
        ({"FHIR_SERVER_SECRET_KEY_FILE": "/dev/null"}, "is empty"),
        ({"FHIR_SERVER_SECRET_KEY_FILE": "/dev/null", "FHIR_SERVER_SECRET_KEY": "k" * 40}, "both set"),
        ({"FHIR_SERVER_POLICY_FILE": "/dev/null"}, "is not a setting"),
    ],
    ids=["missing", "empty", "both", "no-secret"],
)
def test_unusable_secret_file_is_an_error(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.from_environment(environment)


def test_documented_settings_match_the_defined_settings() -> None:
    documented = re.findall(r"`FHIR_SERVER_([A-Z_]+)`", (ROOT / "docs/settings.md").read_text(encoding="utf-8"))
    assert sorted(documented) == sorted(name.upper() for name in FIELDS)


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(ValueError, match="FHIR_SERVER_POLICIES"):
        Settings.from_environment({"FHIR_SERVER_MODE": "test", "FHIR_SERVER_POLICIES": "strict"})
    assert Settings.from_environment({"FHIR_SERVER_MODE": "test", "FHIR_SERVER_POLICY": "strict"}).policy == "strict"


@pytest.mark.parametrize(("former", "name"), settings_module._RENAMED.items())
def test_former_setting_name_is_an_error_with_the_present_name(former: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"FHIR_SERVER_{former} was renamed to FHIR_SERVER_{name}\."):
        Settings.from_environment({"FHIR_SERVER_MODE": "test", f"FHIR_SERVER_{former}": "1"})
    assert name.lower() in FIELDS


@pytest.mark.parametrize(("former", "name"), cli_base._RENAMED.items())
def test_former_command_name_is_an_error_with_the_present_name(former: str, name: str) -> None:
    result = CliRunner().invoke(main, former.split())
    assert result.exit_code == 2 and f"now called '{name}'" in result.output
    assert CliRunner().invoke(main, [*name.split(), "--help"]).exit_code == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"FHIR_SERVER_CLOCK": "2026-01-01T00:00:00Z", "FHIR_SERVER_SECRET_KEY": "k" * 32},
        {"FHIR_SERVER_CLOCK": "2026-01-01T00:00:00", "FHIR_SERVER_MODE": "demo"},
        {"FHIR_SERVER_MODE": "prod"},
        {"FHIR_SERVER_MODE": "demo", "FHIR_SERVER_ORIGIN": "http://127.0.0.1:8000/"},
        {"FHIR_SERVER_MODE": "demo", "FHIR_SERVER_MAX_BODY_BYTES": "many"},
    ],
)
def test_invalid_settings_raise_errors(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="FHIR_SERVER_"):
        Settings.from_environment(environment)


def test_production_requires_a_secret_key() -> None:
    with pytest.raises(ValueError, match="FHIR_SERVER_SECRET_KEY"):
        Settings.from_environment({}).require_key()
    Settings.from_environment({"FHIR_SERVER_SECRET_KEY": "k" * 32}).require_key()
    Settings.from_environment({"FHIR_SERVER_MODE": "demo"}).require_key()


def test_cli_commands_exist_and_have_help() -> None:
    for name in ("serve", "demo", "load", "user", "client", "token", "policy", "relabel", "export", "doctor", "journal"):
        assert main.commands[name].help, name


def test_readme_names_only_existing_targets_and_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", readme)) <= targets
    assert set(re.findall(r"fhir-server ([a-z]+)", readme)) <= set(main.commands)
    linked = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert linked and all((ROOT / path).exists() for path in linked)


def test_source_files_stay_within_size_limits() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name for name, length in lengths.items() if length > 400} == set(LONG)
    assert sorted(lengths.values())[len(lengths) // 2] <= 130


def test_source_contains_no_todo_marks() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError|except Exception: *pass")
    found = [
        f"{path}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


def test_importing_the_app_loads_no_resource_models_or_pymongo() -> None:
    probe = "import sys, fhir_server.app; print([name for name in sys.modules if name.split('.')[0] in ('fhir', 'pymongo')])"
    output = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert output.stdout.strip() == "[]"
