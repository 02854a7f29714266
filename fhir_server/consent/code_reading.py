"""Reads the codes and texts of an element: their labels, their possible labels, and whether a code is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fhir_server.consent.code_systems import normalize_code
from fhir_server.consent.element_table import administrative_systems
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.visibility_classes import UNCLASSIFIED


@dataclass(frozen=True, slots=True)
class CodeReading:
    """What an element says.

    ``labels``      labels of its codes and of the words in its texts; UNCLASSIFIED if a text is too long to be read
    ``possible``    labels that its codes or words give only with a second signal
    ``classified``  whether a code is known as ordinary or as sensitive, and no other code of the element is ambiguous
    ``codes``       its normalized (system, code)
    ``neutral``     whether its codes say nothing by themselves: one is listed as neutral and none is known
    ``administrative``  whether it has codes, all from systems that say nothing of a patient's health
    """

    labels: frozenset[str]
    possible: frozenset[str]
    classified: bool
    codes: frozenset[tuple[str, str]]
    neutral: bool = False
    administrative: bool = False


def read(codes: SensitivityCodes, value: Any) -> CodeReading:
    """Read a CodeableConcept, Coding, code or string.

    Words give labels whatever the codes say, but text never makes an element classified.  One known code among several is enough:
    the codings of a concept are translations of each other, and an unknown one adds nothing.  An ambiguous coding does: azithromycin
    is not ordinary because another coding calls it an antibiotic.
    """
    if type(value) is not dict:
        return _read(codes, (), value if isinstance(value, str) else "")
    codings = tuple([(str(each.get("system", "")), str(each.get("code", "")), str(each.get("display", ""))) for each in _codings(value)])
    text = value.get("text")
    return _read(codes, codings, text if isinstance(text, str) else "")


@lru_cache(4096)  # most resources have the same few concepts
def _read(codes: SensitivityCodes, codings: tuple[tuple[str, str, str], ...], text: str) -> CodeReading:
    classifications = [codes.classify(system, code) for system, code, _ in codings]
    texts = [codes.read_text(each) for each in (text, *(display for _, _, display in codings)) if each]
    labels = frozenset().union(*(known.labels for known in classifications), *(words.labels for words in texts))
    possible = frozenset().union(*(known.possible for known in classifications), *(words.possible for words in texts))
    classified = any(known.classified for known in classifications)
    ambiguous = any(known.possible and not known.classified for known in classifications)
    normalized = frozenset([normalize_code(system, code) for system, code, _ in codings])
    return CodeReading(
        labels if all(words.complete for words in texts) else labels | {UNCLASSIFIED},
        possible - labels,
        classified and not ambiguous,
        normalized,
        not classified and not ambiguous and any(known.neutral for known in classifications),
        bool(normalized) and all(system in administrative_systems() for system, _ in normalized),
    )


def _codings(value: dict[str, Any]) -> list[dict[str, Any]]:
    inner = value.get("coding")
    if type(inner) is list:
        return [coding for coding in inner if type(coding) is dict]
    return [value] if "code" in value else []
