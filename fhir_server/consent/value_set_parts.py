"""Writes rows of a code table as the parts of a ValueSet that :mod:`fhir_server.consent.code_lists` reads.

ICD-10-CM rows are prefixes or ranges of prefixes: filters ``concept is-a``.  Ranges of HCPCS, CPT and revenue codes become filters
``code regex`` whose pattern ends in ``[0-9]``.  Everything else is a list of concepts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fhir_server.consent import code_systems

Json = dict[str, Any]
_HL7: Final = "http://terminology.hl7.org/CodeSystem/"
SYSTEMS: Final = {
    "LOINC": code_systems.LOINC,
    "SNOMED": code_systems.SNOMED,
    "RxNorm": code_systems.RXNORM,
    "ICD-10-CM": code_systems.ICD,
    "CVX": code_systems.CVX,
    "NUCC": code_systems.NUCC,
    "service-type": _HL7 + "service-type",
    "service-category": _HL7 + "service-category",
    "v2-0276": _HL7 + "v2-0276",
    "v3-RoleCode": _HL7 + "v3-RoleCode",
    "v3-ActCode": _HL7 + "v3-ActCode",
    "HCPCS": code_systems.HCPCS,
    "CPT": code_systems.CPT,
    "NUBC-revenue": code_systems.REVENUE,
    "NDC": code_systems.NDC,
    "UNII": "http://fdasis.nlm.nih.gov",
    "X12-service-type": code_systems.X12,
    "CMS-place-of-service": code_systems.PLACE,
}
RANGES: Final = frozenset({code_systems.HCPCS, code_systems.CPT, code_systems.REVENUE})


def includes(system: str, rows: Iterable[Mapping[str, str]]) -> Iterator[Json]:
    """The parts of ``compose.include`` for rows of one system, given by its URI.  Raises ValueError for a broken range."""
    rows = list(rows)
    if system == code_systems.ICD:
        found = sorted({prefix for row in rows for prefix in prefixes(row["code"])})
        kept = [prefix for prefix in found if not any(prefix != other and prefix.startswith(other) for other in found)]
        yield from ({"system": system, "filter": [{"property": "concept", "op": "is-a", "value": prefix}]} for prefix in kept)
        return
    spans = {row["code"] for row in rows if is_range(system, row["code"])}
    patterns = sorted({pattern for span in spans for pattern in ranges(span)})
    for pattern in patterns:
        if pattern.endswith("]"):
            yield {"system": system, "filter": [{"property": "code", "op": "regex", "value": pattern}]}
    singles = [{"code": pattern} for pattern in patterns if not pattern.endswith("]")]
    singles += [_concept(row) for row in rows if row["code"] not in spans]
    if singles:
        yield {"system": system, "concept": sorted(singles, key=lambda concept: concept["code"])}


def is_range(system: str, code: str) -> bool:
    """Whether a row stands for a range of numbers, such as ``A4206-A4259``."""
    return system in RANGES and "-" in code


def ranges(text: str) -> list[str]:
    """A range of codes of one letter and length, as codes and patterns: ``A4206-A4215`` is A4206 ... A4209 and A4210 ... A4215.

    Ten codes with one beginning become a pattern: ``A421[0-9]``.  Raises ValueError if the text is not a range.
    """
    first, _, last = text.partition("-")
    letter = first.rstrip("0123456789")
    width = len(first) - len(letter)
    if len(last) != len(first) or not last.startswith(letter) or not last[len(letter) :].isdecimal() or last < first:
        raise ValueError(f"not a range of codes: {text}")
    low, high = int(first[len(letter) :]), int(last[len(letter) :])
    found = []
    while low <= high:
        digits = 0
        while digits < width and low % 10 ** (digits + 1) == 0 and low + 10 ** (digits + 1) - 1 <= high:
            digits += 1
        found.append(letter + f"{low:0{width}d}"[: width - digits] + "[0-9]" * digits)
        low += 10**digits
    return found


def prefixes(text: str) -> list[str]:
    """The ICD-10-CM prefixes of a row: ``F10``, or a range whose last two digits count, ``F10-F16``, ``Z72.51-Z72.53``.

    Raises ValueError if the text is not such a range.
    """
    first, _, last = text.partition("-")
    if not last:
        return [first]
    parts = re.fullmatch(r"(.*?)(\d{1,2})", first)
    stem, digits = parts.groups() if parts else ("", "")
    end = last.removeprefix(stem)
    if not parts or not last.startswith(stem) or not end.isdecimal() or int(end) < int(digits):
        raise ValueError(f"not a range of ICD-10-CM codes: {text}")
    return [f"{stem}{number:0{len(digits)}d}" for number in range(int(digits), int(end) + 1)]


def _concept(row: Mapping[str, str]) -> Json:
    return {"code": row["code"], **({"display": row["display"]} if row.get("display") else {})}
