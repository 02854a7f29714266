"""Builds the wheel, checks its list of files, and installs it into a separate environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "fhir_server", "ig", "seed_bundles")
_CACHES = ("__pycache__", "*.pyc")


def environment(**settings: str) -> dict[str, str]:
    """Returns the environment variables of this process without server and Python settings, plus ``settings``."""
    names = [name for name in os.environ if not name.startswith(("FHIR_SERVER_", "PYTHON"))]
    return {name: os.environ[name] for name in names} | settings


def copy_sources(target: Path) -> Path:
    """Copies the sources of the wheel, so that a test can change them."""
    target.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns(*_CACHES))
        else:
            shutil.copy(ROOT / name, target / name)
    return target


def build_wheel(source: Path, out: Path) -> Path:
    """Builds a wheel from a source folder or an sdist with the installed build backend, and returns its path."""
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    return next(out.glob("*.whl"))


def build_sdist(out: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(out)]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    return next(out.glob("*.tar.gz"))


def pip(python: str | Path, *arguments: str, **variables: str) -> None:
    """Runs pip on the environment of ``python``.  That environment needs no pip."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(python), *arguments]
    subprocess.run(command, env=environment(**variables), check=True)


def wrong_files(wheel: Path) -> set[str]:
    """Returns the files that are missing from a wheel of this checkout or do not belong in it."""
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    return names ^ set(_expected_files())


def _expected_files() -> Iterator[str]:
    for path in _files("fhir_server"):
        yield str(path)
    for path in (*_files("ig"), *_files("seed_bundles")):
        if path.parts[:2] != ("ig", "sources"):
            yield f"fhir_server/{path}"


def _files(folder: str) -> Iterator[Path]:
    for path in (ROOT / folder).rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            yield path.relative_to(ROOT)


def make_environment(folder: Path) -> Path:
    """Creates an empty virtual environment, and returns the path of its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def install_offline(wheel: Path, python: Path) -> None:
    """Installs the wheel without network access, with links to its installed direct and indirect dependencies.

    The environment contains no other packages, so a dependency that is used but not declared is missing.  pip checks
    that the requirements of the wheel are met.
    """
    site = next(python.parents[1].glob("lib/python*/site-packages"))
    for distribution in _dependencies(wheel):
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(distribution.locate_file(top)))
    pip(python, "install", "--no-index", str(wheel), PIP_FIND_LINKS="")


def install_online(wheel: Path, python: Path, constraints: Path) -> None:
    """Installs the wheel and its dependencies from the package index, in the versions of ``requirements.lock``."""
    pins = re.findall(r"^([\w.-]+==\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    constraints.write_text("\n".join(pins), encoding="utf-8")
    pip(python, "install", "--constraint", str(constraints), str(wheel))


def _dependencies(wheel: Path) -> Iterable[metadata.Distribution]:
    with ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = re.findall(r"^Requires-Dist: (.+)$", archive.read(name).decode(), re.MULTILINE)
    found: dict[str, metadata.Distribution] = {}
    pending = [(line, "") for line in lines]
    while pending:
        line, extra = pending.pop()
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *requirement.extras):
            key = f"{canonicalize_name(requirement.name)}[{wanted}]"
            if key not in found:
                found[key] = metadata.distribution(requirement.name)
                pending += [(text, wanted) for text in found[key].requires or ()]
    return found.values()
