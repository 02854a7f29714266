"""What the codes and words at an element say: labels, possible labels, and whether somebody has classified it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fhir_server.consent.sensitivity_codes import SensitivityCodes, normalize_code


@dataclass(frozen=True, slots=True)
class CodeReading:
    """``codes`` are the (system, code) as the book files them; ``classified``: a coding is known as ordinary or as sensitive."""

    labels: frozenset[str]
    possible: frozenset[str]
    classified: bool
    codes: frozenset[tuple[str, str]]


def read(book: SensitivityCodes, value: Any) -> CodeReading:
    """Read a CodeableConcept, Coding, code or string.  Words label what they name, but never make anything known."""
    if type(value) is not dict:
        return _read(book, (), value if isinstance(value, str) else "")
    codings = [(str(one.get("system", "")), str(one.get("code", "")), str(one.get("display", ""))) for one in _codings(value)]
    text = value.get("text")
    return _read(book, tuple(codings), text if isinstance(text, str) else "")


@lru_cache(4096)  # the same few concepts stand in most resources
def _read(book: SensitivityCodes, codings: tuple[tuple[str, str, str], ...], text: str) -> CodeReading:
    known, codes = [], set()
    words = book.labels_in_text(text)
    for system, code, display in codings:
        known.append(book.classify(system, code))
        codes.add(normalize_code(system, code))
        words |= book.labels_in_text(display)
    return CodeReading(
        words.union(*(one.labels for one in known)),
        frozenset().union(*(one.possible for one in known)),
        any(one.classified for one in known),
        frozenset(codes),
    )


def _codings(value: dict[str, Any]) -> list[dict[str, Any]]:
    inner = value.get("coding")
    if type(inner) is list:
        return [one for one in inner if type(one) is dict]
    return [value] if "code" in value else []
