"""An institution's own lists: what the import refuses, what it writes, and that the lists are then in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fhir_server.consent import own_lists
from fhir_server.consent.sensitivity_codes import SensitivityCodes

KNOWN = SensitivityCodes.load()
HEADER = ",".join(own_lists.COLUMNS)
GOOD = "https://clinic.example/visits,V1,ordinary,,visit table 2026,2026-11-29,A. Lee,Dr. B. Ode,Office visit"


def checked(*lines: str) -> own_lists.Checked:
    return own_lists.check(own_lists.read_csv("\n".join(["# our visits", HEADER, *lines])), KNOWN)


def test_good_rows_of_every_tier_pass() -> None:
    found = checked(
        GOOD,
        "CPT,99202-99215,ordinary,,licence 1,2026-11-29,A,B,",
        "NUBC-revenue,0900-0919,sensitive,MH,licence 2,2026-11-29,A,B,",
        "RxNorm,411212,ordinary,,RxNorm 2026-11,2026-11-29,A,B,gemfibrozil 600 MG",
        "urn:oid:2.16.840.1.113883.6.1,63462-6,neutral,,x,2026-11-29,A,B,",
        "ICD-10-CM,D3A.0,second-signal,GENETIC,x,2026-11-29,A,B,",
        "NDC,0093-7146-56,ordinary,,x,2026-11-29,A,B,",
    )
    assert found.refused == [] and len(found.rows) == 7


REFUSED = {
    "LOINC,20447-9,ordinary,,x,2026-11-29,A,B,": "HIV",
    "LOINC,20447-8,ordinary,,x,2026-11-29,A,B,": "LOINC check digit",
    "SNOMED,186647001,sensitive,SUD,x,2026-11-29,A,B,": "Verhoeff check digit",
    "SNOMED,1.09399E+16,sensitive,SUD,x,2026-11-29,A,B,": "spreadsheet",
    "LOINC, 718-7,ordinary,,x,2026-11-29,A,B,": "white space",
    "LOINC,718-7\u00a0,ordinary,,x,2026-11-29,A,B,": "white space",
    "LOINC,7 18-7,ordinary,,x,2026-11-29,A,B,": "white space",
    "RxNorm,18631,ordinary,,x,2026-11-29,A,B,": "sensitive codes",
    "ICD-10-CM,F32.1,ordinary,,x,2026-11-29,A,B,": "MH",
    "ICD-10-CM,F20-F25,neutral,,x,2026-11-29,A,B,": "MH",
    "HCPCS,H0001-H0010,ordinary,,x,2026-11-29,A,B,": "MH",
    "https://clinic.example/v,V2,ordinary,,x,2026-11-29,A,B,Anxiety visit": "sensitive word",
    "https://clinic.example/v,V2,ordinary-1,,x,2026-11-29,A,B,": "tier",
    "https://clinic.example/v,V2,sensitive,,x,2026-11-29,A,B,": "label",
    "https://clinic.example/v,V2,ordinary,MH,x,2026-11-29,A,B,": "label",
    "https://clinic.example/v,V2,sensitive,HELD,x,2026-11-29,A,B,": "label",
    "https://clinic.example/v,V2,ordinary,,x,29.11.2026,A,B,": "review date",
    "https://clinic.example/v,V2,ordinary,,x,2026-11-29,A,a,": "two reviewers",
    "https://clinic.example/v,V2,ordinary,,x,2026-11-29,A,,": "clinical_reviewer is empty",
    "https://clinic.example/v,V2,ordinary,,,2026-11-29,A,B,": "source is empty",
    "visits,V2,ordinary,,x,2026-11-29,A,B,": "unknown code system",
    "CPT,99215-99202,ordinary,,x,2026-11-29,A,B,": "not a range",
    GOOD: "stands already in line 3",
    GOOD.replace("ordinary,", "sensitive,MH"): "the file calls it ordinary too",
}


@pytest.mark.parametrize("line", REFUSED)
def test_bad_row_is_refused_with_its_line_and_reason(line: str) -> None:
    found = checked(GOOD, line)
    assert [place for place, _ in found.refused] == [4] and len(found.rows) == 1
    assert REFUSED[line] in found.refused[0][1]


@pytest.mark.parametrize("text", ["system,code\nLOINC,718-7", HEADER + ",colour\n" + GOOD + ",red", HEADER + '\n"a"b,', "# only a comment"])
def test_file_with_other_columns_is_refused_whole(text: str) -> None:
    with pytest.raises(ValueError, match=r"columns|not CSV"):
        own_lists.read_csv(text)


def test_imported_lists_are_in_force_and_replace_earlier_ones(tmp_path: Path) -> None:
    rows = checked(GOOD, GOOD.replace("V1,ordinary,", "V9,sensitive,MH")).rows
    assert [path.name for path in own_lists.write(rows, tmp_path, "visits")] == ["ordinary-visits.json", "sensitive-mh-visits.json"]
    book = SensitivityCodes.load(own=tmp_path)
    assert book.classify("https://clinic.example/visits", "V1").ordinary
    assert book.classify("https://clinic.example/visits", "V9").labels == {"MH"}
    assert not KNOWN.classify("https://clinic.example/visits", "V1").classified
    own_lists.write(checked(GOOD.replace("V1", "V2")).rows, tmp_path, "visits")
    book = SensitivityCodes.load(own=tmp_path)
    assert {code for code in ("V1", "V2", "V9") if book.classify("https://clinic.example/visits", code).classified} == {"V2"}
    assert [path.name for path in tmp_path.iterdir()] == ["ordinary-visits.json"]


def test_own_ordinary_row_never_weakens_a_shipped_label(tmp_path: Path) -> None:
    include = {"system": "http://loinc.org", "concept": [{"code": "20447-9"}]}
    (tmp_path / "ordinary-x.json").write_text(json.dumps({"resourceType": "ValueSet", "compose": {"include": [include]}}))
    assert SensitivityCodes.load(own=tmp_path).classify("http://loinc.org", "20447-9").labels == {"HIV"}


def test_folder_with_an_unknown_list_or_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="FHIR_SERVER_CODES_PATH"):
        SensitivityCodes.load(own=tmp_path / "none")
    (tmp_path / "visits.json").write_text("{}")
    with pytest.raises(ValueError, match="name of a code list"):
        SensitivityCodes.load(own=tmp_path)


ABOUT = {"tier": "ordinary", "label": "", "source": "x", "reviewed": "2026-11-29", "reviewer": "A", "clinical_reviewer": "B"}


def value_set(**parts: Any) -> str:
    return json.dumps({"resourceType": "ValueSet", "status": "active", **parts})


def test_value_set_is_read_by_its_concepts_or_expansion() -> None:
    include = [{"system": "http://loinc.org", "version": "2.80", "concept": [{"code": "718-7", "display": "Hemoglobin"}]}]
    contains = [{"system": "http://loinc.org", "code": "4544-3"}]
    for text, code in ((value_set(compose={"include": include}), "718-7"), (value_set(expansion={"contains": contains}), "4544-3")):
        rows = own_lists.read_value_set(text, ABOUT)
        assert [(row.line, row.values["code"]) for row in rows] == [(1, code)]
        assert own_lists.check(rows, KNOWN).refused == []


@pytest.mark.parametrize(
    "text",
    [
        value_set(compose={"include": [{"system": "http://loinc.org"}]}), value_set(compose={"include": [{"valueSet": ["x"]}]}),
        value_set(compose={"include": [], "exclude": []}), value_set(expansion={"contains": [{"contains": []}]}), "[]", "{}",
    ],
)  # fmt: skip
def test_value_set_that_does_not_list_its_codes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ValueSet"):
        own_lists.read_value_set(text, ABOUT)
