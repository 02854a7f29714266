"""Tells a code from what only looks like one: form, check digit, stray characters, numbers that a spreadsheet has spoilt."""

from __future__ import annotations

import re
from typing import Final

from fhir_server.consent.code_systems import CPT, CVX, HCPCS, ICD, LOINC, NDC, PLACE, REVENUE, RXNORM, SNOMED

_ICD: Final = r"[A-Z]\d[0-9A-Z](\.?[0-9A-Z]{1,4})?"
_SHAPES: Final = {
    LOINC: r"\d{1,6}-\d",
    SNOMED: r"\d{6,18}",
    RXNORM: r"\d{1,8}",
    ICD: rf"{_ICD}(-{_ICD})?",
    CVX: r"\d{1,3}",
    HCPCS: r"[A-Z]\d{4}(-[A-Z]\d{4})?",
    CPT: r"\d{4}[0-9A-Z](-\d{5})?",
    REVENUE: r"\d{4}(-\d{4})?",
    PLACE: r"\d{2}",
    NDC: r"\d{11}|\d{4,5}-\d{3,4}-\d{1,2}",
}
_ANY_SHAPE: Final = r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,99}"
_D: Final = (
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
)
_P: Final = ("0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258")


def code_defect(system: str, code: str) -> str:
    """What is wrong with a code of a system, given by its canonical URI; "" if nothing is."""
    if re.search(r"[^\x21-\x7e]", code):
        return "stray white space or character"
    if re.fullmatch(r"[\d.]+[eE]\+?\d+", code) and system not in (CPT, HCPCS):
        return "a number spoilt by a spreadsheet"
    if not re.fullmatch(_SHAPES.get(system, _ANY_SHAPE), code):
        return "not a code of its system"
    if system == LOINC and not loinc_check(code):
        return "LOINC check digit"
    if system == SNOMED and not verhoeff(code):
        return "Verhoeff check digit"
    return ""


def loinc_check(code: str) -> bool:
    """Whether the mod 10 check digit of a LOINC code is correct."""
    digits, _, check = code.partition("-")
    total = sum(sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(reversed(digits)))
    return (10 - total % 10) % 10 == int(check)


def verhoeff(code: str) -> bool:
    """Whether the check digit of a SNOMED CT code is correct."""
    check = 0
    for place, digit in enumerate(reversed(code)):
        check = int(_D[check][int(_P[place % 8][int(digit)])])
    return check == 0
