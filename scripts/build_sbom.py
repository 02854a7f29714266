"""Writes a CycloneDX 1.6 SBOM of the pinned packages: ``python scripts/build_sbom.py requirements.lock > fhir-server.cdx.json``.

The same lock file gives the same bytes: no time and no random number is in it.  Each package has the hashes of all its files in the
lock, of which an installation has one, and names the packages that need it as the lock does ("via").
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\]+)")
_VIA: Final = re.compile(r"^    #(?: via)? {1,3}([A-Za-z0-9._-]+)")
_NAME: Final = "fhir-server"


def read_lock(text: str) -> dict[str, dict[str, Any]]:
    """The pinned packages by name: ``version``, ``hashes`` (SHA-256) and ``via`` (who needs it).  Raises ValueError for another line."""
    packages: dict[str, dict[str, Any]] = {}
    current: dict[str, Any] = {}
    for line in text.splitlines():
        if pin := _PIN.match(line):
            current = packages[pin[1].lower()] = {"version": pin[2], "hashes": [], "via": []}
        elif found := re.match(r"^    --hash=sha256:([0-9a-f]{64})", line):
            current["hashes"].append(found[1])
        elif line.startswith("    #"):
            if via := _VIA.match(line.replace("# via", "#", 1)):
                current["via"].append(via[1].lower())
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"This line of the lock file is not understood: {line!r}")
    return packages


def sbom(text: str, version: str) -> dict[str, Any]:
    """The SBOM of the server of this version with the packages of a lock file's text."""
    packages = read_lock(text)
    root = f"pkg:pypi/{_NAME}@{version}"
    urls = {name: f"pkg:pypi/{name}@{package['version']}" for name, package in packages.items()}
    needs: dict[str, list[str]] = {root: [], **{url: [] for url in urls.values()}}
    for name, package in packages.items():
        for by in package["via"]:
            needs[urls.get(by, root)].append(urls[name])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, root + text)}",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": _NAME, "version": version, "bom-ref": root, "purl": root}},
        "components": [
            {
                "type": "library",
                "name": name,
                "version": package["version"],
                "bom-ref": urls[name],
                "purl": urls[name],
                "hashes": [{"alg": "SHA-256", "content": each} for each in package["hashes"]],
            }
            for name, package in sorted(packages.items())
        ],
        "dependencies": [{"ref": ref, "dependsOn": sorted(set(on))} for ref, on in sorted(needs.items())],
    }


def server_version() -> str:
    found = re.search(r'__version__ = "([^"]+)"', (ROOT / "fhir_server/__init__.py").read_text(encoding="utf-8"))
    if found is None:
        raise ValueError("fhir_server/__init__.py has no version.")
    return found[1]


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("lock", type=Path, help="lock file, such as requirements.lock")
    lock = parser.parse_args().lock
    json.dump(sbom(lock.read_text(encoding="utf-8"), server_version()), sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
