"""Quality checks of the code tables in ``ig/sources``, before they may label or clear a code."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fhir_server.consent.code_checks import code_defect
from fhir_server.consent.code_systems import normalize_code
from fhir_server.consent.word_search import Word, WordSearch

NEGATIVE_CONTROLS = {"718-7", "85354-9", "4548-4", "2951-2", "57021-8"}
SENTINELS = {"hiv": {"20447-9", "24467-3"}, "preg": {"2106-3"}, "pap": {"10524-7"}, "std": {"21613-5"}}
NOT_DRUGS = {"316992"}  # RxNorm dose forms that public lists treat as drugs


@dataclass(frozen=True)
class Listed:
    """One row of a code table.  ``list`` is the name of the table; ``kind`` is sensitive, departments or ordinary."""

    kind: str
    list: str
    row: Mapping[str, str]


class Words:
    """What the words of a display say: the word lists, and the patterns by which a list recognizes its own codes."""

    def __init__(self, words: Iterable[Mapping[str, str]], patterns: Iterable[Mapping[str, str]]) -> None:
        self._search = WordSearch(word_of(row) for row in words)
        self._patterns = {row["label"]: re.compile(row["pattern"], re.I) for row in patterns}

    def labels(self, display: str) -> frozenset[str]:
        return self._search.search(display).labels

    def agree(self, label: str, display: str) -> bool:
        reading = self._search.search(display)
        pattern = self._patterns.get(label)
        return label in reading.labels | reading.possible or (pattern is not None and bool(pattern.search(display)))


def table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def word_of(row: Mapping[str, str]) -> Word:
    """Return the term of a row of ``words.csv``."""
    return Word(row["term"], row["label"], row["use"] == "label", tuple(p.strip() for p in row["unless"].split(";") if p.strip()))


def findings(listed: Iterable[Listed], words: Words, systems: Mapping[str, str]) -> list[str]:
    """Return the defects of the code tables, one sentence each; ``systems`` has the URI of each short name."""
    listed = list(listed)
    found = [f"{one.kind}/{one.list}: {text}" for one in listed for text in _row(one, words, systems)]
    found += list(_lists(listed))
    return found


def _row(one: Listed, words: Words, systems: Mapping[str, str]) -> Iterator[str]:
    row, code, system = one.row, one.row["code"], one.row["system"]
    if any(value != value.strip() or re.search(r"[^\x20-\x7e]", value) for value in row.values()):
        yield f"{code!r}: stray white space or character"
    elif defect := code_defect(normalize_code(systems[system], code)[0] if system in systems else system, code):
        yield f"{code}: {defect}"
    if not row["source"] or not re.fullmatch(r"\d{4}-\d\d-\d\d", row["reviewed"]):
        yield f"{code}: no source or review date"
    if system == "SNOMED" and row["display"]:
        yield f"{code}: SNOMED CT descriptions are not ours to ship"
    if system == "RxNorm" and code in NOT_DRUGS:
        yield f"{code}: a dose form, not a drug"
    if one.kind == "sensitive":
        if row["display"] and row["tier"] == "D" and not words.agree(one.list.upper(), row["display"]):
            yield f"{code}: {row['display']!r} does not speak of {one.list}"
        if code in NEGATIVE_CONTROLS:
            yield f"{code}: a negative control"
        if row["tier"] not in ("D", "C"):
            yield f"{code}: tier {row['tier']!r}"
    elif one.kind in ("ordinary", "neutral"):
        for text in (row["display"], row["note"]):
            if words.labels(text):
                yield f"{code}: {text!r} is called {one.kind}"
        if one.kind == "ordinary" and not re.fullmatch(r"([1-9](\+check-digit)?)?", row["verified"]):
            yield f"{code}: nothing verifies it"
        if system == "CVX" and code in ("62", "118", "137", "165"):
            yield f"{code}: HPV vaccines are not ordinary"


def _lists(listed: list[Listed]) -> Iterator[str]:
    known = {
        kind: {(one.row["system"], one.row["code"]) for one in listed if one.kind == kind}
        for kind in ("ordinary", "neutral", "departments", "sensitive")
    }
    certain = known["departments"] | {
        (one.row["system"], one.row["code"]) for one in listed if one.kind == "sensitive" and one.row["tier"] == "D"
    }
    prefixes = [prefix for system, code in certain if system == "ICD-10-CM" for prefix in _expanded(code)]
    for one in listed:
        key = system, code = one.row["system"], one.row["code"]
        clash = key in certain or (system == "ICD-10-CM" and _clash(code, prefixes))
        if one.kind in ("ordinary", "neutral") and clash:
            yield f"{one.kind}/{one.list}: {code} is sensitive"
        if one.kind == "ordinary" and key in known["sensitive"] - certain:
            yield f"ordinary/{one.list}: {code} needs a second signal"
        if one.kind == "ordinary" and key in known["neutral"]:
            yield f"ordinary/{one.list}: {code} says nothing by itself"
    for name, codes in SENTINELS.items():
        for code in sorted(codes - {one.row["code"] for one in listed if one.list == name and one.row.get("tier") == "D"}):
            yield f"sensitive/{name}: the sentinel {code} is missing"
    seen: set[tuple[str, str, str, str]] = set()
    for one in listed:
        stands = (one.kind, one.list, one.row["system"], one.row["code"])
        if stands in seen:
            yield f"{one.kind}/{one.list}: {one.row['code']} stands twice"
        seen.add(stands)


def _expanded(code: str) -> list[str]:
    """Return the codes of a range.  They differ only in their last one or two digits."""
    first, _, last = code.partition("-")
    if not last:
        return [first]
    stem = first[:-2] if first[-2].isdecimal() else first[:-1]
    width = len(first) - len(stem)
    return [f"{stem}{number:0{width}d}" for number in range(int(first[len(stem) :]), int(last[len(stem) :]) + 1)]


def _clash(code: str, prefixes: list[str]) -> bool:
    """Whether an ordinary row lies inside a sensitive one, or a row below a category has a sensitive one inside.

    A category or a range of categories may have sensitive cuts.
    """
    inside = all(any(part.startswith(prefix) for prefix in prefixes) for part in _expanded(code))
    return inside or (len(code) > 3 and "-" not in code and any(prefix.startswith(code) for prefix in prefixes))
