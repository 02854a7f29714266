"""Every R4 type has one declaration, and its element paths exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fhir_server.resources import ResourceType, _default_declarations, catalog, collect_declarations, definitions

DATA_CLASSES = frozenset(
    [
        "demographics",
        "lab",
        "imaging",
        "vitals",
        "social",
        "survey",
        "medication",
        "visit",
        "slot",
        "billing",
        "coverage",
        "immunization",
        "allergy",
        "condition",
        "note",
        "psynote",
        "letter",
        "endoflife",
        "message",
        "careteam",
        "careplan",
        "procedure",
        "familyhistory",
        "device",
        "related-person",
        "consent",
        "consent-ended",
        "restriction",
        "audit",
        "provenance",
        "task",
        "group",
        "directory",
        "medication-definition",
        "app-state",
        "other",
    ]
)
FOLDER = Path(definitions.__file__).parent
DECLARED = sorted(name for name in catalog() if (FOLDER / f"{name.lower()}.py").exists())
PATHS = (
    "subjects", "inherits_labels_from", "member_references", "depends_on", "departments",
)  # fmt: skip


def test_every_r4_type_is_in_the_catalog() -> None:
    assert tuple(catalog()) == definitions.types()
    assert all(name == declared.name for name, declared in catalog().items())


def test_a_type_declared_twice_is_refused() -> None:
    twice = [ResourceType("Patient", "demographics"), ResourceType("Patient", "other")]
    with pytest.raises(ValueError, match="Patient is declared twice"):
        collect_declarations(twice)
    assert set(collect_declarations(twice[:1])) == {"Patient"}


@pytest.mark.parametrize("name", definitions.types())
def test_declared_paths_exist(name: str) -> None:
    declared = catalog()[name]
    known = {element.path.partition(".")[2] for element in definitions.elements(name)}
    # The sections of a Composition have sections of the same form.
    named = {re.sub(r"^(section\.)+", "section.", path) for kind in PATHS for path in getattr(declared, kind)}
    assert named <= known
    assert {declared.data_class, *declared.by_category.values(), *declared.by_status.values(), *declared.by_source.values()} <= DATA_CLASSES


@pytest.mark.parametrize("name", DECLARED)
def test_declared_hidden_statuses_are_codes_of_that_element(name: str) -> None:
    hidden = catalog()[name].hidden_status
    status = next((e.codes for e in definitions.elements(name) if e.path == f"{name}.status"), None)
    assert hidden <= {code for codes in (status or {}).values() for code in codes}


def test_default_declarations_list_undeclared_r4_types_once() -> None:
    listed = [name for names in _default_declarations.DATA_CLASSES.values() for name in names.split()]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(definitions.types())
    assert not set(listed) & set(DECLARED)


def test_every_compartment_type_declares_its_subjects() -> None:
    """Every type of the patient compartment has a subject: without one, no patient would own the resource."""
    assert [name for name in definitions.compartments()["Patient"] if not catalog()[name].subjects] == []


@pytest.mark.parametrize("name", definitions.compartments()["Patient"])
def test_acting_participants_are_not_subjects(name: str) -> None:
    acting = ("performer", "author", "asserter", "recorder", "requester", "sender", "recipient", "agent")
    assert not [path for path in catalog()[name].subjects if path.split(".")[-1] in acting or path.startswith("agent")]


def test_declarations_match_the_policys_assumptions() -> None:
    found = catalog()
    assert found["Patient"].subjects == ("id",)
    assert (found["Appointment"].subjects, found["Appointment"].shared_rows) == (("participant.actor",), "each")
    assert found["Account"].shared_rows == "all"
    assert found["Provenance"].depends_on == ("target",)
    assert found["Observation"].by_category["vital-signs"] == "vitals"
    assert next(iter(found["Observation"].by_category)) == "social-history"  # the stricter class wins
    assert found["Task"].subjects == ("for",)
    assert found["ImagingStudy"].data_class == "imaging"
    assert found["StructureDefinition"].data_class == "directory"
    assert found["ClinicalImpression"].data_class == "other"
    assert "preliminary" in found["Observation"].hidden_status
    assert "medication[x]" in found["MedicationDispense"].inherits_labels_from
