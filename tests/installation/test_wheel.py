"""The wheel and the sdist contain the files that the server needs, and no others."""

from __future__ import annotations

import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.installation.building import ROOT, build_sdist, build_wheel, copy_sources, install_offline, make_environment, wrong_files


def test_wheel_holds_the_server_and_its_data_only(tmp_path: Path) -> None:
    wheel = build_wheel(ROOT, tmp_path)
    assert wrong_files(wheel) == set()
    with ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if name.endswith("licenses/ig/sources/NOTICE.md")]


@pytest.mark.parametrize(
    ("setting", "changed", "reported"),
    [
        ('exclude = ["/ig/sources"', ', "/ig/valuesets/sensitive-hiv.json"', "fhir_server/ig/valuesets/sensitive-hiv.json"),
        ('only-include = ["fhir_server", "ig", "seed_bundles"', ', "scripts"', "scripts/planted.py"),
    ],
    ids=["missing", "foreign"],
)
def test_file_check_reports_a_planted_fault(tmp_path: Path, setting: str, changed: str, reported: str) -> None:
    source = copy_sources(tmp_path / "source")
    (source / "scripts").mkdir()
    (source / "scripts/planted.py").touch()
    project = source / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    assert setting in text
    project.write_text(text.replace(setting, setting + changed, 1), encoding="utf-8")
    assert wrong_files(build_wheel(source, tmp_path / "out")) == {reported}


def test_sdist_builds_the_same_wheel(tmp_path: Path) -> None:
    sdist = build_sdist(tmp_path)
    assert wrong_files(build_wheel(sdist, tmp_path / "out")) == set()


@pytest.mark.slow
def test_offline_installation_lacks_an_undeclared_dependency(tmp_path: Path) -> None:
    source = copy_sources(tmp_path / "source")
    project = source / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    assert '  "segno>=' in text
    project.write_text(text.replace('  "segno>=', '  # "segno>='), encoding="utf-8")
    python = make_environment(tmp_path / "venv")
    install_offline(build_wheel(source, tmp_path / "out"), python)
    imported = {name: subprocess.run([python, "-c", f"import {name}"], cwd=tmp_path).returncode for name in ("zxcvbn", "segno")}
    assert imported == {"zxcvbn": 0, "segno": 1}
