"""Code lists: normalization of codes, classification, and rejection of invalid lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fhir_server.consent import code_systems
from fhir_server.consent.code_lists import CodeClassification, CodeLists
from fhir_server.consent.code_reading import read
from fhir_server.consent.code_systems import normalize_code
from fhir_server.consent.sensitivity_codes import SensitivityCodes

BOOK = SensitivityCodes.load()
LOINC = "http://loinc.org"
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
CVX = "http://hl7.org/fhir/sid/cvx"
SNOMED = "http://snomed.info/sct"
CPT = "http://www.ama-assn.org/go/cpt"
HCPCS = "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
X12 = "https://x12.org/codes/service-type-codes"
PLACE = "https://www.cms.gov/Medicare/Coding/place-of-service-codes/Place_of_Service_Code_Set"


@pytest.mark.parametrize(
    ("system", "code", "label"),
    [
        (LOINC, "20447-9", "HIV"), (LOINC, "24467-3", "HIV"), (LOINC, "21613-5", "STD"), (LOINC, "10524-7", "PAP"),
        (LOINC, "2106-3", "PREG"), (LOINC, "65750-2", "DRUGTEST"), (LOINC, "44249-1", "MH"), (LOINC, "72109-2", "SUD"),
        (LOINC, "76499-3", "SEXAB"), (LOINC, "8659-5", "REPRO"), (LOINC, "21636-6", "GENETIC"), (ICD, "F32.A", "MH"),
        (ICD, "f32a", "MH"),
        (ICD, "Z91.51", "MH"), (ICD, "F10.20", "SUD"), (ICD, "O98.711", "HIV"), (RXNORM, "32937", "MH"),
        (SNOMED, "240589008", "STD"), (HCPCS, "H0001", "SUD"), (HCPCS, "H0001", "MH"), (HCPCS, "J2315", "SUD"), (X12, "A4", "MH"),
        (PLACE, "55", "SUD"), (CVX, "62", "STD"), (CVX, "165", "STD"), (ICD, "M83.0", "PREG"), (HCPCS, "G0480", "DRUGTEST"),
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
        (ICD, "M83.1"),
        (HCPCS, "A4206"),
        (HCPCS, "A4259"),
        (HCPCS, "L4631"),
        (X12, "30"),
        (PLACE, "11"),
    ],
)
def test_common_codes_are_ordinary_and_unlabeled(system: str, code: str) -> None:
    known = BOOK.classify(system, code)
    assert known.ordinary and not known.labels


@pytest.mark.parametrize(
    ("system", "code"), [(CPT, "99213"), (CPT, "90837"), (LOINC, "99999-9"), ("http://example.org/local", "718-7"), ("", "718-7")]
)
def test_unlisted_code_is_unclassified(system: str, code: str) -> None:
    assert not BOOK.classify(system, code).classified


def test_ambiguous_code_yields_only_a_possible_label() -> None:
    known = BOOK.classify(RXNORM, "18631")
    assert (known.labels, known.possible, known.ordinary) == (frozenset(), {"STD"}, False)


def test_cut_in_a_range_is_not_ordinary() -> None:
    for system, code in ((ICD, "S37.0"), (ICD, "M02.3"), (HCPCS, "A4260"), (HCPCS, "A42061"), (HCPCS, "A4205")):
        assert not BOOK.classify(system, code).ordinary, code


def test_general_service_is_neutral_and_not_classified() -> None:
    known = BOOK.classify("http://terminology.hl7.org/CodeSystem/service-type", "44")
    assert known.neutral and not known.classified


def test_ambiguous_entry_cuts_a_wider_ordinary_one(tmp_path: Path) -> None:
    lists = CodeLists()
    ordinary, ambiguous = CodeClassification(ordinary=True), CodeClassification(possible=frozenset({"STD"}))
    lists.add_prefix(ICD, "N4", 0, ordinary)
    lists.add_prefix(ICD, "N41", 0, ordinary)
    lists.add_prefix(ICD, "N41.5", 0, ambiguous)
    lists.add_prefix(ICD, "N41.51", 0, ordinary)
    answers = {code: lists.classify(ICD, code).ordinary for code in ("N41.0", "N41.5", "N41.50", "N41.51")}
    assert answers == {"N41.0": True, "N41.5": False, "N41.50": False, "N41.51": True}


@pytest.mark.parametrize("uri", sorted(code_systems._NAMES))
def test_system_is_recognized_in_every_spelling(uri: str) -> None:
    for name in (uri, *code_systems._NAMES[uri]):
        spellings = [name, f" {name}/", name + "|2026", name.upper(), name.replace("http://", "https://")]
        spellings += [name.removeprefix("urn:oid:")] if name.startswith("urn:oid:") else []
        for spelling in spellings:
            assert normalize_code(spelling, "A1234")[0] == normalize_code(uri, "A1234")[0], spelling


@pytest.mark.parametrize(
    ("system", "code", "expected"),
    [
        (CPT, "99213-25", (CPT, "99213")), (CPT, "J2315", (HCPCS, "J2315")), (HCPCS, "99213", (CPT, "99213")), (PLACE, "2", (PLACE, "02")),
        ("http://hl7.org/fhir/sid/ndc", "0093-7146-56", ("http://hl7.org/fhir/sid/ndc", "00093714656")),
        ("http://hl7.org/fhir/sid/ndc", "00093714656", ("http://hl7.org/fhir/sid/ndc", "00093714656")),
        (LOINC, "20447\u20119", (LOINC, "20447-9")), (X12, "01", (X12, "1")), (RXNORM, "0161", (RXNORM, "161")),
        ("https://www.nubc.org/CodeSystem/RevenueCodes", "905", ("https://www.nubc.org/CodeSystem/RevenueCodes", "0905")),
    ],
)  # fmt: skip
def test_code_is_written_in_one_form(system: str, code: str, expected: tuple[str, str]) -> None:
    assert normalize_code(system, code) == expected


@pytest.mark.parametrize(
    ("value", "labels", "classified", "neutral"),
    [
        ({"text": "Hemoglobin"}, set(), False, False), ({"text": "Truvada"}, {"HIV"}, False, False),
        ({"coding": [{"system": RXNORM, "code": "161"}], "text": "Truvada"}, {"HIV"}, True, False),
        ({"coding": [{"system": RXNORM, "code": "161"}, {"system": "urn:x", "code": "1"}]}, set(), True, False),
        ({"coding": [{"system": RXNORM, "code": "161"}, {"system": RXNORM, "code": "18631"}]}, set(), False, False),
        ({"coding": [{"system": PLACE, "code": "03"}]}, set(), False, True),
        ({"coding": [{"system": PLACE, "code": "03"}, {"system": PLACE, "code": "11"}]}, set(), True, False),
        ("x " * 100_000, {"UNCLASSIFIED"}, False, False),
    ],
)  # fmt: skip
def test_concept_is_read_by_its_codes_and_words(value: Any, labels: set[str], classified: bool, neutral: bool) -> None:
    reading = read(BOOK, value)
    assert (reading.labels, reading.classified, reading.neutral) == (labels, classified, neutral)


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
