"""The code tables of ``ig/sources`` pass the quality checks, and the checks find planted defects."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from fhir_server.consent.value_set_parts import SYSTEMS, ranges
from fhir_server.resources import validate
from tests.consent.quality_gate import Listed, Words, findings, table

IG = Path(__file__).parents[2] / "ig"


def builder() -> ModuleType:
    """Return the script that builds the ValueSets."""
    spec = importlib.util.spec_from_file_location("build_valuesets", IG.parent / "scripts" / "build_valuesets.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


BUILDER = builder()
WORDS = Words(table(IG / "sources" / "words.csv"), table(IG / "sources" / "keywords.csv"))


def everything() -> list[Listed]:
    paths = [path for path in sorted((IG / "sources").glob("*/*.csv")) if path.parent.name != "unconfirmed"]
    return [Listed(path.parent.name, path.stem, row) for path in paths for row in table(path)]


def test_code_tables_pass_the_quality_gate() -> None:
    listed = everything()
    assert len(listed) > 1000
    assert findings(listed, WORDS, SYSTEMS) == []


def row(system: str, code: str, display: str = "", tier: str = "D") -> dict[str, str]:
    return {"system": system, "code": code, "tier": tier, "source": "OWN", "reviewed": "2026-11-21", "verified": "1",
            "note": "", "display": display}  # fmt: skip


PLANTED = {
    "a no-break space": (Listed("sensitive", "hiv", row("LOINC", "25836-8\u00a0", "HIV 1 RNA")), "stray white space"),
    "a LOINC check digit": (
        Listed("sensitive", "std", row("LOINC", "87591-5", "Neisseria gonorrhoeae DNA")),
        "LOINC check digit",
    ),
    "a Verhoeff digit": (Listed("sensitive", "sud", row("SNOMED", "186647001")), "Verhoeff"),
    "a spreadsheet exponent": (Listed("sensitive", "sud", row("SNOMED", "1.09399E+16")), "spreadsheet"),
    "a part code": (Listed("sensitive", "hiv", row("LOINC", "LP14361-9", "HIV")), "not a code"),
    "a herpes drug among the HIV drugs": (Listed("sensitive", "hiv", row("RxNorm", "281", "Acyclovir")), "does not speak of hiv"),
    "haemoglobin as substance use": (Listed("sensitive", "sud", row("LOINC", "718-7", "Hemoglobin")), "negative control"),
    "a dose form as a drug": (Listed("sensitive", "mh", row("RxNorm", "316992", "lozenge for anxiety")), "dose form"),
    "a sensitive code called ordinary": (Listed("ordinary", "chemistry", row("LOINC", "2106-3", "Peptide")), "is sensitive"),
    "a sensitive text called ordinary": (
        Listed("ordinary", "chemistry", row("LOINC", "2345-7", "Chlamydia DNA")),
        "called ordinary",
    ),
    "a diagnosis inside a sensitive range": (Listed("ordinary", "diagnoses", row("ICD-10-CM", "N87.1")), "is sensitive"),
    "an HPV vaccine called ordinary": (Listed("ordinary", "vaccines", row("CVX", "165", "9-valent")), "HPV"),
    "no source": (Listed("ordinary", "vitals", {**row("LOINC", "8302-2"), "source": ""}), "no source"),
    "a SNOMED CT description": (Listed("sensitive", "mh", row("SNOMED", "35489007", "Depressive disorder")), "descriptions"),
    "a neutral code called ordinary": (Listed("ordinary", "departments", row("service-type", "44")), "says nothing by itself"),
    "a second signal called ordinary": (Listed("ordinary", "drugs", row("RxNorm", "18631")), "needs a second signal"),
    "a category inside a sensitive range": (Listed("ordinary", "diagnoses", row("ICD-10-CM", "F20-F25")), "is sensitive"),
    "a row around a sensitive one": (Listed("ordinary", "diagnoses", row("ICD-10-CM", "Z72.5")), "is sensitive"),
    "an unverified ordinary code": (Listed("ordinary", "vitals", {**row("LOINC", "8302-2"), "verified": "0"}), "nothing verifies"),
    "a sensitive note": (Listed("ordinary", "problems", {**row("SNOMED", "13644009"), "note": "depression"}), "called ordinary"),
    "a code listed twice": (Listed("sensitive", "hiv", row("LOINC", "20447-9", "HIV 1 RNA")), "stands twice"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_quality_gate_detects_planted_faults(fault: str) -> None:
    planted, expected = PLANTED[fault]
    assert any(expected in text for text in findings([*everything(), planted], WORDS, SYSTEMS))


@pytest.mark.parametrize("sentinel", ["20447-9", "24467-3", "2106-3", "10524-7", "21613-5"])
def test_quality_gate_detects_missing_sentinel_codes(sentinel: str) -> None:
    left = [one for one in everything() if one.row["code"] != sentinel]
    assert any(f"sentinel {sentinel}" in text for text in findings(left, WORDS, SYSTEMS))


def test_committed_value_sets_match_their_source_tables() -> None:
    built = dict(BUILDER.build(IG / "sources"))
    files = [*(IG / "valuesets").glob("*.json"), *(IG / "codesystems").glob("*.json"), IG / "words.json"]
    committed = {str(path.relative_to(IG)): path.read_text() for path in files}
    assert committed == built


def test_value_sets_and_code_systems_are_valid_r4() -> None:
    for path in [*(IG / "valuesets").glob("*.json"), *(IG / "codesystems").glob("*.json")]:
        resource = json.loads(path.read_text())
        assert [i for i in validate.check(resource["resourceType"], resource) if i.severity == "error"] == [], path.name


def test_unconfirmed_codes_are_in_no_value_set() -> None:
    text = "".join(path.read_text() for path in (IG / "valuesets").glob("*.json"))
    rows = [row for path in (IG / "sources" / "unconfirmed").glob("*.csv") for row in table(path)]
    assert len(rows) > 1000
    drugs = {row["code"] for row in rows if row["system"] == "RxNorm"}
    listed = {
        concept["code"]
        for path in (IG / "valuesets").glob("ordinary-*.json")
        for part in json.loads(path.read_text())["compose"]["include"]
        if part["system"].endswith("rxnorm")
        for concept in part["concept"]
    }
    assert not drugs & listed
    assert SYSTEMS["CPT"] not in text and SYSTEMS["NUBC-revenue"] not in text


@pytest.mark.parametrize("span", ["A4206-A4259", "A4210", "99202-99215", "0300-0309", "J0558-J0561", "H0001-H0999"])
def test_range_stands_for_exactly_its_codes(span: str) -> None:
    patterns = ranges(span) if "-" in span else [span]
    first, _, last = span.partition("-")
    letter, low, high = first.rstrip("0123456789"), first.lstrip("AHJ"), (last or first).lstrip("AHJ")
    width = len(low)
    expected = {f"{letter}{number:0{width}d}" for number in range(int(low), int(high) + 1)}
    universe = [f"{letter}{number:0{width}d}" for number in range(10**width)]
    assert {code for code in universe if any(re.fullmatch(pattern, code) for pattern in patterns)} == expected
