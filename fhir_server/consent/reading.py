"""What the codes and words at an element say: labels, possible labels, and whether somebody has classified it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fhir_server.consent.codes import CodeBook, normal


@dataclass(frozen=True, slots=True)
class Reading:
    """``codes`` are the (system, code) as the book files them; ``classified``: a coding is known as ordinary or as sensitive."""

    labels: frozenset[str]
    possible: frozenset[str]
    classified: bool
    codes: frozenset[tuple[str, str]]


def read(book: CodeBook, value: Any) -> Reading:
    """Read a CodeableConcept, Coding, code or string.  Words label what they name, but never make anything known."""
    known, codes = [], set()
    words: frozenset[str] = frozenset()
    for coding in _codings(value):
        system, code = str(coding.get("system", "")), str(coding.get("code", ""))
        known.append(book.of(system, code))
        codes.add(normal(system, code))
        words |= book.of_text(str(coding.get("display", "")))
    text = value.get("text") if isinstance(value, dict) else value
    if isinstance(text, str):
        words |= book.of_text(text)
    return Reading(
        words.union(*(one.labels for one in known)),
        frozenset().union(*(one.possible for one in known)),
        any(one.classified for one in known),
        frozenset(codes),
    )


def _codings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        inner = value.get("coding")
        if isinstance(inner, list):
            yield from (one for one in inner if isinstance(one, dict))
        elif "code" in value:
            yield value
