"""Reads the codes and texts of an element: their labels, their possible labels, and whether a code is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fhir_server.consent.sensitivity_codes import SensitivityCodes, normalize_code


@dataclass(frozen=True, slots=True)
class CodeReading:
    """What an element says.

    ``labels``      labels of its codes and of keywords in its texts
    ``possible``    labels that its codes give only with a second signal
    ``classified``  whether a code is known as ordinary or as sensitive
    ``codes``       its normalized (system, code)
    """

    labels: frozenset[str]
    possible: frozenset[str]
    classified: bool
    codes: frozenset[tuple[str, str]]


def read(codes: SensitivityCodes, value: Any) -> CodeReading:
    """Read a CodeableConcept, Coding, code or string.  Keywords give labels, but text never makes an element classified."""
    if type(value) is not dict:
        return _read(codes, (), value if isinstance(value, str) else "")
    codings = [(str(coding.get("system", "")), str(coding.get("code", "")), str(coding.get("display", ""))) for coding in _codings(value)]
    text = value.get("text")
    return _read(codes, tuple(codings), text if isinstance(text, str) else "")


@lru_cache(4096)  # most resources have the same few concepts
def _read(codes: SensitivityCodes, codings: tuple[tuple[str, str, str], ...], text: str) -> CodeReading:
    classifications = [codes.classify(system, code) for system, code, _ in codings]
    texts = (text, *(display for _, _, display in codings))
    return CodeReading(
        frozenset().union(*(codes.labels_in_text(each) for each in texts), *(known.labels for known in classifications)),
        frozenset().union(*(known.possible for known in classifications)),
        any(known.classified for known in classifications),
        frozenset(normalize_code(system, code) for system, code, _ in codings),
    )


def _codings(value: dict[str, Any]) -> list[dict[str, Any]]:
    inner = value.get("coding")
    if type(inner) is list:
        return [coding for coding in inner if type(coding) is dict]
    return [value] if "code" in value else []
