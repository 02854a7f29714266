"""Checks an institution's own code lists and writes them as ValueSets into its folder (docs/codes.md, your own lists).

Every ordinary row is a disclosure, so each names its source, the date of its review and two reviewers; a row that contradicts a
list of sensitive codes is refused, never merged.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fhir_server.consent.code_checks import code_defect
from fhir_server.consent.code_systems import ICD, normalize_code
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.value_set_parts import SYSTEMS, includes, is_range, prefixes, ranges
from fhir_server.consent.visibility_classes import CATEGORIES

COLUMNS: Final = ("system", "code", "tier", "label", "source", "reviewed", "reviewer", "clinical_reviewer", "display")
_REQUIRED: Final = frozenset(COLUMNS) - {"label", "display"}
_OPTIONAL: Final = frozenset({"label", "display", "verified", "note"})
TIERS: Final = ("ordinary", "neutral", "second-signal", "sensitive")
_CATEGORY: Final = "https://fhir-server.example/ig/CodeSystem/sensitive-category"


@dataclass(frozen=True, slots=True)
class NumberedRow:
    """A row of a list, with the line (or, in a ValueSet, the place) where it stands."""

    line: int
    values: Mapping[str, str]


@dataclass(slots=True)
class Checked:
    """The result of a check: the rows to import, and (line, reason) of each refused one."""

    rows: list[Mapping[str, str]] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)


def read_csv(text: str) -> list[NumberedRow]:
    """The rows of a CSV file; lines that begin with # before the column names are skipped.  Raises ValueError for wrong columns."""
    lines = text.splitlines()
    skipped = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    reader = csv.DictReader(lines[skipped:], strict=True)
    columns = set(reader.fieldnames or ())
    if missing := _REQUIRED - columns:
        raise ValueError(f"The file lacks the columns {', '.join(sorted(missing))}.")
    if unknown := columns - _REQUIRED - _OPTIONAL:
        raise ValueError(f"The file has unknown columns: {', '.join(sorted(map(str, unknown)))}.")
    try:
        return [NumberedRow(skipped + reader.line_num, {key: value or "" for key, value in row.items() if key}) for row in reader]
    except csv.Error as error:
        raise ValueError(f"The file is not CSV at line {skipped + reader.line_num}: {error}.") from None


def read_value_set(text: str, about: Mapping[str, str]) -> list[NumberedRow]:
    """The codes of a ValueSet, listed in ``compose.include`` or expanded; ``about`` has the other columns, the same for all.

    Raises ValueError for a ValueSet with parts other than lists of codes: whoever made it must expand it.
    """
    resource: Any = json.loads(text)
    if not isinstance(resource, dict) or resource.get("resourceType") != "ValueSet":
        raise ValueError("The file is no ValueSet.")
    contains = resource.get("expansion", {}).get("contains")
    if contains is None:
        parts = resource.get("compose", {}).get("include", [])
        if "exclude" in resource.get("compose", {}) or any(set(part) - {"system", "version", "concept"} for part in parts):
            raise ValueError("The ValueSet has filters, exclusions or other ValueSets. Expand it first.")
        contains = [{**concept, "system": part.get("system", "")} for part in parts for concept in part.get("concept", ())]
    if not contains or any("contains" in item or not isinstance(item.get("code"), str) for item in contains):
        raise ValueError("The ValueSet does not list its codes in one level.")
    codes = ({"system": item.get("system", ""), "code": item["code"], "display": item.get("display", "")} for item in contains)
    return [NumberedRow(number, {**about, **code}) for number, code in enumerate(codes, 1)]


def check(rows: Iterable[NumberedRow], known: SensitivityCodes) -> Checked:
    """Check the rows against each other and against the lists in force."""
    checked, seen = Checked(), dict[tuple[str, str, str], int]()
    tiers: dict[tuple[str, str], str] = {}
    for row in rows:
        system, code = normalize_code(SYSTEMS.get(row.values["system"], row.values["system"]), row.values["code"])
        values = {**row.values, "system": system}
        key = (system, values["code"] if is_range(system, values["code"]) else code)
        kind = "sensitive" if values["tier"] in ("sensitive", "second-signal") else values["tier"]
        earlier = seen.get((*key, values.get("label", "")))
        reason = _defect(values) or _contradiction(values, known)
        if not reason and earlier is not None:
            reason = f"stands already in line {earlier}"
        if not reason and tiers.setdefault(key, kind) != kind:
            reason = f"the file calls it {tiers[key]} too"
        if reason:
            checked.refused.append((row.line, f"{values['code']!r}: {reason}"))
        else:
            seen[(*key, values.get("label", ""))] = row.line
            checked.rows.append(values)
    return checked


def write(rows: Iterable[Mapping[str, str]], folder: Path, name: str) -> list[Path]:
    """Write the rows as ValueSets of this name, in place of those of an earlier import, and return the files."""
    groups: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["tier"], row.get("label", "")), []).append(row)
    files = {_file_name(tier, label, name): _value_set(label, table) for (tier, label), table in groups.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for file, resource in files.items():
        draft = folder / f"{file}.new"
        draft.write_text(json.dumps(resource, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(folder / file)
    for path in files_of(folder, name):
        if path.name not in files:
            path.unlink()
    return sorted(folder / file for file in files)


def files_of(folder: Path, name: str) -> list[Path]:
    """The ValueSets of one import."""
    middle = "|".join(sorted(category.lower() for category in CATEGORIES))
    own = re.compile(rf"(ordinary|neutral|sensitive-({middle}))-{re.escape(name)}(-second-signal)?\.json")
    return [path for path in sorted(folder.glob("*.json")) if own.fullmatch(path.name)]


def _file_name(tier: str, label: str, name: str) -> str:
    if tier in ("ordinary", "neutral"):
        return f"{tier}-{name}.json"
    return f"sensitive-{label.lower()}-{name}{'-second-signal' if tier == 'second-signal' else ''}.json"


def _defect(row: Mapping[str, str]) -> str:
    """What is wrong with a row by itself."""
    blank = sorted(name for name in _REQUIRED if not row.get(name, "").strip())
    if blank:
        return f"{', '.join(blank)} is empty"
    if any(re.search(r"[\x00-\x1f\x7f\u00a0\u2000-\u200f\u2028-\u202f\ufeff]", value) or value != value.strip() for value in row.values()):
        return "stray white space or character"
    if row["tier"] not in TIERS:
        return f"tier {row['tier']!r} is not one of {', '.join(TIERS)}"
    if row.get("verified") == "0":
        return "verified 0: nobody has confirmed it"
    if (row.get("label", "") in CATEGORIES) != (row["tier"] in ("sensitive", "second-signal")) or (
        row.get("label") and row["label"] not in CATEGORIES
    ):
        return "a sensitive row needs the label of a category, an ordinary or neutral one has none"
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", row["reviewed"]):
        return "the review date is not like 2026-11-29"
    if row["reviewer"].casefold() == row["clinical_reviewer"].casefold():
        return "two reviewers are needed"
    if not re.match(r"(https?://|urn:)", row["system"]):
        return f"unknown code system {row['system']!r}: give its URI"
    if defect := code_defect(row["system"], row["code"]):
        return defect
    try:
        _parts(row["system"], row["code"])
    except ValueError as error:
        return str(error)
    return ""


def _parts(system: str, code: str) -> list[str]:
    """The prefixes, codes or beginnings of codes that a row stands for."""
    if system == ICD:
        return prefixes(code)
    return [pattern.replace("[0-9]", "0") for pattern in ranges(code)] if is_range(system, code) else [code]


def _contradiction(row: Mapping[str, str], known: SensitivityCodes) -> str:
    """What the lists in force, or the words of its display, say against an ordinary or neutral row."""
    if row["tier"] in ("sensitive", "second-signal"):
        return ""
    found = [known.classify(row["system"], part) for part in _parts(row["system"], row["code"])]
    for one in found:
        if one.labels or one.possible:
            return f"a list of sensitive codes has it ({', '.join(sorted(one.labels | one.possible))})"
    words = known.labels_in_text(row.get("display", ""))
    return f"its display has a sensitive word ({', '.join(sorted(words))})" if words else ""


def _value_set(label: str, rows: list[Mapping[str, str]]) -> dict[str, Any]:
    systems = sorted({row["system"] for row in rows})
    context = {
        "code": {"system": "http://terminology.hl7.org/CodeSystem/usage-context-type", "code": "focus"},
        "valueCodeableConcept": {"coding": [{"system": _CATEGORY, "code": label}]},
    }
    approved = sorted({f"{row['reviewer']} and {row['clinical_reviewer']}, {row['reviewed']}: {row['source']}" for row in rows})
    return {
        "resourceType": "ValueSet", "status": "active", **({"useContext": [context]} if label else {}), "purpose": "\n".join(approved),
        "compose": {"include": [part for system in systems for part in includes(system, [row for row in rows if row["system"] == system])]},
    }  # fmt: skip
