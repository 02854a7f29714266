"""HL7's official examples of R4, from the npm package that HL7 publishes, where it is at hand."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.served import ROOT

PACKAGE = "hl7.fhir.r4.examples"
INSTALLED = ROOT / "tests" / "browser" / "node_modules" / PACKAGE
_decoder = json.JSONDecoder(parse_float=lambda digits: ("number", digits), parse_int=lambda digits: ("number", digits))


def official_examples() -> Iterator[tuple[str, bytes]]:
    """Name and JSON text of each example.

    The package is found where npm installs it for the tests, or as the ``.tgz`` that ``R4_EXAMPLES`` names.  Skips the test without it.
    """
    archive = Path(os.environ.get("R4_EXAMPLES", ""))
    if archive.is_file():
        with tarfile.open(archive) as files:
            for member in files:
                file = files.extractfile(member) if member.name.endswith(".json") and member.name.count("/") == 1 else None
                if file is not None:
                    yield from _resources(member.name.partition("/")[2], file.read())
    elif INSTALLED.is_dir():
        for path in sorted(INSTALLED.glob("*.json")):
            yield from _resources(path.name, path.read_bytes())
    else:
        pytest.skip(f"npm's package {PACKAGE} 4.0.1 is not at hand")


def _resources(name: str, text: bytes) -> Iterator[tuple[str, bytes]]:
    if name not in ("package.json", ".index.json") and b'"resourceType"' in text:
        yield name, text


def exactly(text: bytes) -> Any:
    """The value of a JSON text in which numbers are their digits."""
    return _decoder.decode(text.decode())
