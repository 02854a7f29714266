"""HL7's official examples of R4, from the npm package that HL7 publishes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "node_modules" / "hl7.fhir.r4.examples"
_decoder = json.JSONDecoder(parse_float=lambda digits: ("number", digits), parse_int=lambda digits: ("number", digits))


def official_examples() -> Iterator[tuple[str, bytes]]:
    """Name and JSON text of each example.  Fails without the package."""
    assert FOLDER.is_dir(), "The examples are missing: run `npm ci` in tests/fhir_xml (make test-all does)."
    for path in sorted(FOLDER.glob("*.json")):
        text = path.read_bytes()
        if path.name not in ("package.json", ".index.json") and b'"resourceType"' in text:
            yield path.name, text


def exactly(text: bytes) -> Any:
    """The value of a JSON text in which numbers are their digits."""
    return _decoder.decode(text.decode())
