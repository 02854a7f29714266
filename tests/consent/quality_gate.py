"""Quality checks of the code tables in ``ig/sources``, before they may label or clear a code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

NEGATIVE_CONTROLS = {"718-7", "85354-9", "4548-4", "2951-2", "57021-8"}
SENTINELS = {"hiv": {"20447-9", "24467-3"}, "preg": {"2106-3"}, "pap": {"10524-7"}, "std": {"21613-5"}}
SHAPES = {
    "LOINC": r"\d{1,6}-\d",
    "SNOMED": r"\d{6,18}",
    "RxNorm": r"\d{1,8}",
    "ICD-10-CM": r"[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?(-[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?)?",
    "CVX": r"\d{2,3}",
}
NOT_DRUGS = {"316992"}  # RxNorm dose forms that public lists treat as drugs

_D = (
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
_P = ("0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258")


@dataclass(frozen=True)
class Listed:
    """One row of a code table.  ``list`` is the name of the table; ``kind`` is sensitive, departments or ordinary."""

    kind: str
    list: str
    row: Mapping[str, str]


def loinc_check(code: str) -> bool:
    """Return whether the mod 10 check digit of a LOINC code is correct."""
    digits, _, check = code.partition("-")
    total = sum(sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(reversed(digits)))
    return (10 - total % 10) % 10 == int(check)


def verhoeff(code: str) -> bool:
    """Return whether the check digit of a SNOMED CT code is correct."""
    check = 0
    for place, digit in enumerate(reversed(code)):
        check = int(_D[check][int(_P[place % 8][int(digit)])])
    return check == 0


def findings(listed: Iterable[Listed], keywords: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the defects of the code tables and keywords, one sentence each."""
    listed, keywords = list(listed), list(keywords)
    labels = {row["label"] for row in keywords}
    agree = {label: re.compile("|".join(row["pattern"] for row in keywords if row["label"] == label), re.I) for label in labels}
    tells = re.compile("|".join(k["pattern"] for k in keywords if k["use"] == "label"), re.I)
    found = [f"{one.kind}/{one.list}: {text}" for one in listed for text in _row(one, agree, tells)]
    found += list(_lists(listed))
    return found


def _row(one: Listed, agree: Mapping[str, re.Pattern[str]], tells: re.Pattern[str]) -> Iterator[str]:
    row, code, system = one.row, one.row["code"], one.row["system"]
    if any(value != value.strip() or re.search(r"[^\x20-\x7e]", value) for value in row.values()):
        yield f"{code!r}: stray white space or character"
    if re.search(r"\d[eE]\+\d", code):
        yield f"{code}: a number spoilt by a spreadsheet"
    elif not re.fullmatch(SHAPES.get(system, r"[A-Za-z0-9-]+"), code):
        yield f"{code!r}: not a code of {system}"
    elif system == "LOINC" and not loinc_check(code):
        yield f"{code}: LOINC check digit"
    elif system == "SNOMED" and not verhoeff(code):
        yield f"{code}: Verhoeff check digit"
    if not row["source"] or not re.fullmatch(r"\d{4}-\d\d-\d\d", row["reviewed"]):
        yield f"{code}: no source or review date"
    if system == "SNOMED" and row["display"]:
        yield f"{code}: SNOMED CT descriptions are not ours to ship"
    if system == "RxNorm" and code in NOT_DRUGS:
        yield f"{code}: a dose form, not a drug"
    if one.kind == "sensitive":
        if row["display"] and not agree[one.list.upper()].search(row["display"]):
            yield f"{code}: {row['display']!r} does not speak of {one.list}"
        if code in NEGATIVE_CONTROLS:
            yield f"{code}: a negative control"
        if row["tier"] not in ("D", "C"):
            yield f"{code}: tier {row['tier']!r}"
    elif one.kind == "ordinary":
        if tells.search(row["display"]):
            yield f"{code}: {row['display']!r} is called ordinary"
        if system == "CVX" and code in ("62", "118", "137", "165"):
            yield f"{code}: HPV vaccines are not ordinary"


def _lists(listed: list[Listed]) -> Iterator[str]:
    sensitive = {(one.row["system"], one.row["code"]) for one in listed if one.kind == "departments" or one.row.get("tier") == "D"}
    prefixes = [prefix for system, code in sensitive if system == "ICD-10-CM" for prefix in _expanded(code)]
    for one in listed:
        system, code = one.row["system"], one.row["code"]
        clash = (system, code) in sensitive or (system == "ICD-10-CM" and _overlaps(code, prefixes))
        if one.kind == "ordinary" and clash:
            yield f"ordinary/{one.list}: {code} is sensitive"
    for name, codes in SENTINELS.items():
        for code in sorted(codes - {one.row["code"] for one in listed if one.list == name and one.row.get("tier") == "D"}):
            yield f"sensitive/{name}: the sentinel {code} is missing"
    seen: set[tuple[str, str, str, str]] = set()
    for one in listed:
        key = (one.kind, one.list, one.row["system"], one.row["code"])
        if key in seen:
            yield f"{one.kind}/{one.list}: {one.row['code']} stands twice"
        seen.add(key)


def _expanded(code: str) -> list[str]:
    """Return the codes of a range.  They differ only in their last one or two digits."""
    first, _, last = code.partition("-")
    if not last:
        return [first]
    stem = first[:-2] if first[-2].isdecimal() else first[:-1]
    width = len(first) - len(stem)
    return [f"{stem}{number:0{width}d}" for number in range(int(first[len(stem) :]), int(last[len(stem) :]) + 1)]


def _overlaps(code: str, prefixes: list[str]) -> bool:
    return "-" not in code and any(code.startswith(prefix) or prefix.startswith(code) for prefix in prefixes)
