"""The table of elements decides about every coded and textual element of R4, and has no line that decides about nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_server.consent.element_rules import tree
from fhir_server.consent.element_table import CODED, ElementTable, Line, administrative_systems, table
from fhir_server.package_data import data_folder
from fhir_server.resources import definitions

SPEAKING = CODED | {"string", "markdown", "xhtml", "base64Binary", "code", "canonical", "uri", "url", "Reference", "Attachment"}
TEXTUAL = {"string", "markdown", "xhtml", "base64Binary", "code"}
# Datatypes that only definitions such as StructureDefinition use.
FOR_DEFINITIONS = {"ElementDefinition", "TriggerDefinition", "ParameterDefinition"}


def walk(of: ElementTable) -> Iterator[tuple[str, str, str, Line | None]]:
    """(type or datatype, element, datatype of its value, line) of every element that may say something."""
    for name in (*definitions.types(), *sorted(definitions.datatypes() - FOR_DEFINITIONS)):
        for element in definitions.elements(name):
            path = element.path.partition(".")[2]
            for ref in element.types:
                if path and not element.like and ref.code in SPEAKING:
                    yield name, path, ref.code, of.line(name, path, ref.code, element.codes is not None)


def undecided(of: ElementTable) -> set[str]:
    return {f"{name}.{path}: {datatype}" for name, path, datatype, line in walk(of) if line is None and datatype in CODED | TEXTUAL}


def idle(of: ElementTable) -> set[Line]:
    """The lines that decide about nothing."""
    return set(of.lines()) - {line for *_, line in walk(of) if line is not None}


def changed(folder: Path, file: str, old: str, new: str) -> ElementTable:
    """The shipped table with one change."""
    shutil.copytree(data_folder("ig") / "elements", folder, dirs_exist_ok=True)
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    return ElementTable(folder)


def test_every_coded_and_textual_element_is_decided() -> None:
    assert undecided(table()) == set()


def test_every_line_decides_about_an_element() -> None:
    assert idle(table()) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "missing"),
    [
        ("administration.csv", "Encounter,class classHistory.class priority", "Encounter,class priority",
         "Encounter.classHistory.class: Coding"),
        ("billing.csv", "item[].modifier item[].diagnosis.diagnosis[x]", "item[].modifier",
         "CoverageEligibilityRequest.item.diagnosis.diagnosis[x]: CodeableConcept"),
        ("all-types.csv", '*,reasonCode,detail,"reason"\n', "", "Procedure.reasonCode: CodeableConcept"),
        ("datatypes.csv", "string markdown,,text", "markdown,,text", "Account.description: string"),
    ],
)  # fmt: skip
def test_a_planted_missing_line_is_found(tmp_path: Path, file: str, old: str, new: str, missing: str) -> None:
    assert missing in undecided(changed(tmp_path, file, old, new))


def test_a_planted_line_about_nothing_is_found(tmp_path: Path) -> None:
    of = changed(tmp_path, "clinical.csv", "Goal,description,kind", "Goal,descriptoin description,kind")
    assert {(line.types, line.element) for line in idle(of)} == {("Goal", "descriptoin")}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Goal,description,kind,", "Goal,description,kinds,", "needs a rule"),
        ('Goal,description,kind,"the goal"', "Goal,description,kind,", "a reason"),
        ("Goal,description,kind,", "Goal,description description,kind,", "two lines"),
    ],
)
def test_a_broken_line_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(tmp_path, "clinical.csv", old, new)


@pytest.mark.parametrize(
    ("name", "element", "datatype", "required", "rule"),
    [
        ("Encounter", "class", "Coding", False, "detail"),  # its own line
        ("RequestGroup", "action.reasonCode", "CodeableConcept", False, "detail"),  # the line of any type, at any depth
        ("Condition", "clinicalStatus", "CodeableConcept", True, "marks"),
        ("SupplyDelivery", "type", "CodeableConcept", True, "marks"),  # a required binding
        ("Organization", "type", "CodeableConcept", False, "marks"),  # the directory
        ("Observation", "value[x]", "string", False, "detail"),  # a string counts as the codes would
        ("Observation", "note", "Annotation", False, None),  # its text has a line
        ("Annotation", "text", "markdown", False, "text"),
        ("Patient", "id", "string", False, "plain"),
    ],
)
def test_the_closest_line_decides(name: str, element: str, datatype: str, required: bool, rule: str | None) -> None:
    line = table().line(name, element, datatype, required)
    assert (line.rule if line is not None else None) == rule


def test_brackets_say_where_a_label_lands() -> None:
    lines = {(line.types, line.element): line.up for line in table().lines()}
    assert lines["Observation", "code"] == 0
    assert lines["Observation", "component.code"] == 1
    assert lines["Claim", "item.detail.productOrService"] == 2
    assert lines["QuestionnaireResponse", "item.answer.value[x]"] == 2


def test_every_type_has_a_tree_and_circles_end() -> None:
    for name in definitions.types():
        assert tree(name) is tree(name)
    section = tree("Composition").members["section"]
    assert section.members["section"] is section


def test_administrative_systems_leave_out_what_can_name_an_illness() -> None:
    assert "http://terminology.hl7.org/CodeSystem/observation-category" in administrative_systems()
    assert not administrative_systems() & {
        "http://snomed.info/sct", "http://loinc.org", "http://terminology.hl7.org/CodeSystem/service-type", "",
        "http://terminology.hl7.org/CodeSystem/service-category",
    }  # fmt: skip
