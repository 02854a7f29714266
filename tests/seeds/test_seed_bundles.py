"""The seed bundles are valid, self-contained, and complete for the demo."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.resources import validate

from .seed_data import BUNDLES, ROOT, bundle, patients, references, rows

Row = dict[str, Any]
SEEDS = rows()
ANCHOR = date(2026, 11, 21)
EXTENSION = "https://fhir-server.example/ig/StructureDefinition/"
LOINC, RXNORM, LOCAL = "http://loinc.org", "http://www.nlm.nih.gov/research/umls/rxnorm", "https://demo-health.example/codes/"
CVX = "http://hl7.org/fhir/sid/cvx"
SENSITIVE_PLACES = {"mental-health-clinic", "drug-alcohol-treatment-centre", "sexual-abuse-clinic"}
THREE = ("adult", "teen", "child")


def about(patient: str, kind: str) -> list[Row]:
    return [row for row in SEEDS.values() if row["resourceType"] == kind and patient in patients(row, SEEDS)]


def codes(row: Row, system: str, name: str = "code") -> set[str]:
    value = row.get(name, [])
    concepts = value if isinstance(value, list) else [value]
    return {coding["code"] for concept in concepts for coding in concept.get("coding", []) if coding["system"].startswith(system)}


def loinc(*wanted: str) -> Callable[[Row], bool]:
    return lambda row: bool(codes(row, LOINC) & set(wanted))


def rxnorm(*wanted: str) -> Callable[[Row], bool]:
    return lambda row: bool(codes(row, RXNORM, "medicationCodeableConcept") & set(wanted))


def local(name: str) -> Callable[[Row], bool]:
    return lambda row: bool(codes(row, LOCAL, name))


def places(row: Row) -> set[str]:
    return {reference.removeprefix("Location/") for reference in references(row) if reference.startswith("Location/")}


def sensitive_place(row: Row) -> bool:
    return bool(places(row) & SENSITIVE_PLACES)


def status(*wanted: str) -> Callable[[Row], bool]:
    return lambda row: row["status"] in wanted


def extended(name: str) -> Callable[[Row], bool]:
    return lambda row: any(one["url"] == EXTENSION + name for one in row.get("extension", []))


def unshared(row: Row) -> bool:
    return any(label["code"] == "PHY" for label in row.get("meta", {}).get("security", []))


def both(*tests: Callable[[Row], bool]) -> Callable[[Row], bool]:
    return lambda row: all(test(row) for test in tests)


def ordinary_place(row: Row) -> bool:
    return bool(places(row)) and not sensitive_place(row)


def in_a_sensitive_visit(row: Row) -> bool:
    visit = row.get("encounter", {}).get("reference")
    return visit is not None and sensitive_place(SEEDS[visit]) and not loinc("19295-5")(row)


def mixed_panel(row: Row) -> bool:
    named = {code for member in row["result"] for code in codes(SEEDS[member["reference"]], LOINC)}
    return bool(named & {"56888-1", "20507-0"}) and bool(named - {"56888-1", "20507-0"})


VITALS = {"85354-9", "29463-7", "8302-2", "8310-5"}
KINDS: dict[str, tuple[str, Callable[[Row], bool], tuple[str, ...]]] = {
    "vital signs": ("Observation", loinc(*VITALS), (*THREE, "senior", "newly-adult")),
    "blood count": ("Observation", loinc("718-7"), (*THREE, "newly-adult")),
    "lipids": ("Observation", loinc("2093-3"), THREE),
    "glucose": ("Observation", loinc("2339-0"), (*THREE, "senior")),
    "STD test": ("Observation", loinc("21613-5", "24111-7", "20507-0"), (*THREE, "newly-adult")),
    "HIV test": ("Observation", loinc("56888-1", "20447-9", "9837-6"), (*THREE, "newly-adult")),
    "drug test": ("Observation", loinc("19295-5", "19415-9", "14314-9"), (*THREE, "newly-adult")),
    "Pap test": ("Observation", loinc("10524-7"), ("adult", "teen")),
    "pregnancy test": ("Observation", loinc("2106-3"), ("adult", "teen")),
    "screening instrument": ("Observation", loinc("44261-6", "89204-2"), ("adult", "teen")),
    "result that only its visit makes sensitive": ("Observation", in_a_sensitive_visit, THREE),
    "unclassified lab": ("Observation", local("code"), THREE),
    "unreleased result": ("Observation", extended("release-at"), THREE),
    "preliminary result": ("Observation", status("preliminary"), THREE),
    "panel with one sensitive member": ("DiagnosticReport", mixed_panel, THREE),
    "ordinary medication": ("MedicationStatement", rxnorm("435", "161", "83367"), THREE),
    "sensitive medication": ("MedicationStatement", rxnorm("36437", "4493", "6901"), THREE),
    "unclassified medication": ("MedicationStatement", local("medicationCodeableConcept"), THREE),
    "past ordinary appointment": ("Appointment", both(ordinary_place, status("fulfilled")), THREE),
    "upcoming ordinary appointment": ("Appointment", both(ordinary_place, status("booked")), THREE),
    "cancelled appointment": ("Appointment", status("cancelled"), THREE),
    "past sensitive appointment": ("Appointment", both(sensitive_place, status("fulfilled")), THREE),
    "upcoming sensitive appointment": ("Appointment", both(sensitive_place, status("booked")), THREE),
    "unclassified appointment": ("Appointment", local("serviceType"), THREE),
    "ordinary visit": ("Encounter", ordinary_place, THREE),
    "sensitive visit": ("Encounter", sensitive_place, THREE),
    "minor-consented visit": ("Encounter", extended("minor-consented"), ("child", "teen", "newly-adult")),
    "balance": ("Account", extended("account-balance"), (*THREE, "newly-adult", "senior")),
    "confidential account": ("Account", extended("minor-consented"), ("teen",)),
    "immunization": ("Immunization", status("completed"), (*THREE, "newly-adult", "senior")),
    "HPV vaccine": ("Immunization", lambda row: "165" in codes(row, CVX, "vaccineCode"), ("adult", "teen")),
    "coverage": ("Coverage", status("active"), (*THREE, "newly-adult", "senior")),
    "shared condition": ("Condition", lambda row: not unshared(row), THREE),
    "condition a clinician unshared": ("Condition", unshared, (*THREE, "newly-adult")),
    "allergy": ("AllergyIntolerance", lambda row: True, THREE),
    "procedure": ("Procedure", status("completed"), THREE),
    "note": ("DocumentReference", status("current"), THREE),
    "care team with the demo clinician": ("CareTeam", lambda row: "Practitioner/dr-rivera" in references(row), THREE),
    "answered message": ("Communication", lambda row: "inResponseTo" in row, THREE),
    "provenance": ("Provenance", lambda row: True, THREE),
    "result a parent measured": ("Observation", lambda row: "RelatedPerson/" in str(row.get("performer")), ("teen", "child")),
    "result another patient measured": ("Observation", lambda row: "Patient/" in str(row.get("performer")), ("teen",)),
}


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.stem)
def test_a_bundle_and_every_resource_in_it_are_valid_r4(path: Path) -> None:
    value = bundle(path)
    assert [str(issue) for issue in validate.check("Bundle", value)] == []
    for entry in value["entry"]:
        resource = entry["resource"]
        assert [str(issue) for issue in validate.check(resource["resourceType"], resource)] == [], resource["id"]


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.stem)
def test_bundle_is_an_anchor_dated_transaction_of_puts(path: Path) -> None:
    value = bundle(path)
    assert (value["type"], value["timestamp"]) == ("transaction", f"{ANCHOR}T00:00:00Z")
    for entry in value["entry"]:
        name = f"{entry['resource']['resourceType']}/{entry['resource']['id']}"
        assert entry["request"] == {"method": "PUT", "url": name}
        assert "fullUrl" not in entry  # so that its references name resources of the server that loads it


def test_no_resource_appears_in_two_bundles() -> None:
    assert len(SEEDS) == sum(len(bundle(path)["entry"]) for path in BUNDLES)


def test_references_resolve_in_own_or_earlier_bundles() -> None:
    known: set[str] = set()
    for path in BUNDLES:
        entries = bundle(path)["entry"]
        known |= {entry["request"]["url"] for entry in entries}
        for entry in entries:
            assert set(references(entry["resource"])) <= known, entry["request"]["url"]


@pytest.mark.parametrize(("patient", "years"), [("adult", 42), ("child", 8), ("teen", 14), ("newly-adult", 18), ("senior", 77)])
def test_patient_keeps_the_promised_age_on_any_load_date(patient: str, years: int) -> None:
    born = date.fromisoformat(SEEDS[f"Patient/{patient}"]["birthDate"])
    for days in range(-1500, 15000, 7):
        moved, today = born + timedelta(days), ANCHOR + timedelta(days)
        assert today.year - moved.year - ((today.month, today.day) < (moved.month, moved.day)) == years, today


def test_the_newly_adult_turned_18_about_a_month_before() -> None:
    born = date.fromisoformat(SEEDS["Patient/newly-adult"]["birthDate"])
    assert (born.replace(year=born.year + 18) + timedelta(32)) == ANCHOR


def test_narrative_and_text_contain_no_year() -> None:
    prose = re.compile(r'"(?:div|conclusion|description|comment|contentString|patientInstruction)": "((?:[^"\\]|\\.)*)"')
    found = [text.replace("http://www.w3.org/1999/xhtml", "") for path in BUNDLES for text in prose.findall(path.read_text())]
    assert len(found) > 20
    assert [text for text in found if re.search(r"\b(19[4-9]\d|20\d\d)\b", text)] == []


@pytest.mark.parametrize(("kind", "patient"), [(kind, patient) for kind, (_, _, who) in KINDS.items() for patient in who])
def test_patient_has_a_resource_of_each_promised_kind(kind: str, patient: str) -> None:
    resource_type, is_kind, _ = KINDS[kind]
    assert [row["id"] for row in about(patient, resource_type) if is_kind(row)]


@pytest.mark.parametrize("digits", [b'"value": 1.50,', b'"value": 98.60,', b'"value": 0.010,', b'"value": 124.50,'])
def test_seeds_contain_decimals_with_trailing_zeros(digits: bytes) -> None:
    assert any(digits in path.read_bytes() for path in BUNDLES)


def test_seeds_contain_partial_dates() -> None:
    assert SEEDS["Condition/adult-hypertension"]["onsetDateTime"] == "2019-05"
    assert SEEDS["MedicationStatement/adult-ibuprofen"]["effectiveDateTime"] == "2026"


def test_seeds_contain_an_unknown_extension() -> None:
    assert any(not one["url"].startswith((EXTENSION, "http://hl7.org/")) for one in SEEDS["Patient/child"]["extension"])


@pytest.mark.parametrize("name", ["Appointment/adult-senior-group-therapy", "Account/adult-teen-household-account"])
def test_seeds_contain_resources_of_two_patients(name: str) -> None:
    assert len(patients(SEEDS[name], SEEDS)) == 2


@pytest.mark.parametrize("patient", ["child", "teen", "newly-adult"])
@pytest.mark.parametrize("parent", ["parent-a", "parent-b"])
def test_both_parents_have_active_child_proxy_without_end_date(parent: str, patient: str) -> None:
    name = f"{parent}-of-{patient}"
    assert SEEDS[f"RelatedPerson/{name}"]["active"] is True
    consent = SEEDS[f"Consent/{name}"]
    (permit,) = consent["provision"]["provision"]
    assert consent["status"] == "active"
    assert consent["category"][1]["coding"][0]["code"] == "proxy-child"
    assert (permit["type"], permit["actor"][0]["reference"]["reference"]) == ("permit", f"RelatedPerson/{name}")
    assert "end" not in permit["period"]


@pytest.mark.parametrize("level", ["standard", "full"])
def test_adult_proxy_consent_has_patient_as_performer_and_a_level(level: str) -> None:
    consent = SEEDS[f"Consent/proxy-{level}-of-adult"]
    assert [category["coding"][0]["code"] for category in consent["category"]] == ["59284-0", "proxy-adult", level]
    assert consent["performer"] == [consent["patient"]]


@pytest.mark.parametrize("path", sorted((ROOT / "ig/profiles").glob("*.json")), ids=lambda path: path.stem)
def test_profile_is_valid_and_matches_its_canonical_url(path: Path) -> None:
    profile = jsontext.parse(path.read_bytes())
    assert [str(issue) for issue in validate.check("StructureDefinition", profile)] == []
    assert profile["url"] == EXTENSION + path.stem


def test_profiles_used_by_seeds_are_exactly_those_defined() -> None:
    named = set(re.findall(re.escape(EXTENSION) + r"([\w-]+)", "".join(path.read_text() for path in BUNDLES)))
    assert named == {path.stem for path in (ROOT / "ig/profiles").glob("*.json")}
