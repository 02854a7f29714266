"""Code lists: normalization of codes, classification, and rejection of invalid lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fhir_server.consent.sensitivity_codes import SensitivityCodes

BOOK = SensitivityCodes.load()
LOINC = "http://loinc.org"
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
CVX = "http://hl7.org/fhir/sid/cvx"
SNOMED = "http://snomed.info/sct"


@pytest.mark.parametrize(
    ("system", "code", "label"),
    [
        (LOINC, "20447-9", "HIV"), (LOINC, "24467-3", "HIV"), (LOINC, "21613-5", "STD"), (LOINC, "10524-7", "PAP"),
        (LOINC, "2106-3", "PREG"), (LOINC, "65750-2", "DRUGTEST"), (LOINC, "44249-1", "MH"), (LOINC, "72109-2", "SUD"),
        (LOINC, "76499-3", "SEXAB"), (LOINC, "8659-5", "REPRO"), (LOINC, "21636-6", "GENETIC"), (ICD, "F32.A", "MH"),
        (ICD, "f32a", "MH"),
        (ICD, "Z91.51", "MH"), (ICD, "F10.20", "SUD"), (ICD, "O98.711", "HIV"), (RXNORM, "32937", "MH"),
        (SNOMED, "240589008", "STD"),
    ],
)  # fmt: skip
def test_sensitive_codes_have_their_label(system: str, code: str, label: str) -> None:
    assert label in BOOK.classify(system, code).labels


@pytest.mark.parametrize(
    ("system", "code"),
    [
        (LOINC, "718-7"),
        (LOINC, "85354-9"),
        (LOINC, "4548-4"),
        (LOINC, "2951-2"),
        (RXNORM, "161"),
        (CVX, "03"),
        (CVX, "3"),
        (ICD, "J02.9"),
    ],
)
def test_common_codes_are_ordinary_and_unlabeled(system: str, code: str) -> None:
    known = BOOK.classify(system, code)
    assert known.ordinary and not known.labels


@pytest.mark.parametrize(
    ("system", "code"), [(CVX, "62"), (CVX, "165"), (LOINC, "99999-9"), ("http://example.org/local", "718-7"), ("", "718-7")]
)
def test_unlisted_code_is_unclassified(system: str, code: str) -> None:
    assert not BOOK.classify(system, code).classified


def test_ambiguous_code_yields_only_a_possible_label() -> None:
    known = BOOK.classify(RXNORM, "18631")
    assert (known.labels, known.possible, known.ordinary) == (frozenset(), {"STD"}, False)


@pytest.mark.parametrize(
    ("system", "code"),
    [
        ("urn:oid:2.16.840.1.113883.6.1", "20447-9"), (LOINC, " 20447-9\u00a0"), (LOINC + "|2.77", "20447-9"),
        (LOINC + "/", "20447-9"),
        ("http://snomed.info/sct/731000124108/version/20250901", "86406008"), ("urn:oid:2.16.840.1.113883.6.96", "86406008"),
        ("urn:oid:2.16.840.1.113883.6.90", "b20"), ("http://hl7.org/fhir/sid/icd-10", "B24"),
    ],
)  # fmt: skip
def test_code_and_system_variants_are_normalized(system: str, code: str) -> None:
    assert BOOK.classify(system, code).labels == {"HIV"}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("HIV-1 viral load", {"HIV"}), ("Suboxone follow-up", {"SUD"}), ("Behavioral Health Clinic", {"MH"}),
        ("Gonococcal culture", {"STD"}),
        ("Hemoglobin", set()), ("Hearing aids", set()), ("CPAP machine", set()), ("Chlamydophila pneumoniae IgG", set()),
        ("Bowel prep", set()),
    ],
)  # fmt: skip
def test_text_keywords_determine_labels(text: str, labels: set[str]) -> None:
    assert BOOK.labels_in_text(text) == labels


def test_folder_without_code_lists_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="FHIR_SERVER_IG_PATH"):
        SensitivityCodes.load(tmp_path)


@pytest.mark.parametrize(
    "compose",
    [
        {"include": [{"valueSet": ["http://example.org/vs"]}]},
        {"include": [{"system": LOINC}]},
        {"include": [{"system": SNOMED, "filter": [{"property": "concept", "op": "descendent-of", "value": "86406008"}]}]},
        {"include": [{"system": LOINC, "concept": [{"code": "1-8"}]}], "exclude": []},
        {},
    ],
)
def test_unsupported_code_list_content_raises_an_error(tmp_path: Path, compose: object) -> None:
    folder = tmp_path / "valuesets"
    folder.mkdir()
    (folder / "ordinary-local.json").write_text(json.dumps({"resourceType": "ValueSet", "compose": compose}))
    with pytest.raises(ValueError, match=r"ordinary-local\.json"):
        SensitivityCodes.load(tmp_path)


def test_sensitive_code_list_requires_a_category(tmp_path: Path) -> None:
    folder = tmp_path / "valuesets"
    folder.mkdir()
    compose = {"include": [{"system": LOINC, "concept": [{"code": "1-8"}]}]}
    (folder / "sensitive-local.json").write_text(json.dumps({"resourceType": "ValueSet", "compose": compose}))
    with pytest.raises(ValueError, match="useContext"):
        SensitivityCodes.load(tmp_path)
