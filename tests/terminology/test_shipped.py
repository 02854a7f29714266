"""R4's own value sets expand to the codes that HL7 publishes for them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fhir_server.errors import Problem
from fhir_server.package_data import data_folder
from fhir_server.resources import definitions
from fhir_server.terminology.expansion import Code, Expander, contained
from fhir_server.terminology.shipped import R4, Guide, code_systems, r4_resources
from fhir_server.terminology.sources import Terminology

SHIPPED = Terminology([R4(), Guide()])


def _codes(url: str) -> set[tuple[str, str]]:
    found = asyncio.run(SHIPPED.find("ValueSet", url))
    assert found is not None
    return set(asyncio.run(Expander(SHIPPED).expand(found.resource)))


def _example(name: str) -> tuple[set[tuple[str, str]], dict[tuple[str, str], Code]]:
    """The codes of HL7's expansion, and ours."""
    found = asyncio.run(SHIPPED.find("ValueSet", f"http://hl7.org/fhir/ValueSet/{name}"))
    assert found is not None
    published = {(one["system"], one["code"]) for one in contained(found.resource["expansion"]["contains"]) if "code" in one}
    return published, asyncio.run(Expander(SHIPPED).expand(found.resource))


def test_hl7_s_example_expansions_are_the_same() -> None:
    """Of HL7's four, one is of LOINC, one shows groups that its rules do not select, and one is older than its code system."""
    published, codes = _example("yesnodontknow")
    assert published == set(codes)
    published, codes = _example("inactive")
    system = asyncio.run(SHIPPED.code_system("http://terminology.hl7.org/CodeSystem/v3-ActMood"))
    assert system is not None
    assert published <= set(codes)
    for _, code in set(codes) - published:
        assert system.concepts[code].values("status")[0] in ("deprecated", "retired")
    assert {code.code for code in codes.values() if code.is_inactive} == {"GOL.CRT", "INT.CRT", "PRMS.CRT", "RQO.CRT", "RSK.CRT"}


def test_required_bindings_have_the_codes_by_which_resources_are_validated() -> None:
    compared = 0
    bound: dict[str, Any] = {}
    for name in definitions.types():
        bound |= definitions._part(name)["codes"]
    for name, codes in bound.items():
        url = f"http://hl7.org/fhir/ValueSet/{name}"
        if asyncio.run(SHIPPED.find("ValueSet", url)) is not None:
            assert _codes(url) == {(system, code) for system, members in codes.items() for code in members}, name
            compared += 1
    assert compared > 190


def test_every_value_set_of_r4_expands_or_says_what_is_missing() -> None:
    outcomes: dict[str, int] = {}
    for value_set in r4_resources("ValueSet"):
        try:
            asyncio.run(Expander(SHIPPED).expand(value_set))
            outcome = "expanded"
        except Problem as problem:
            outcome = problem.issues[0].code
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["expanded"] > 1200
    assert set(outcomes) <= {"expanded", "not-supported", "not-found", "invalid"}
    assert outcomes.get("invalid", 0) + outcomes.get("not-found", 0) < 5


def test_the_guide_s_own_code_systems_are_loaded() -> None:
    assert "https://fhir-server.example/ig/CodeSystem/proxy-level" in code_systems()
    found = asyncio.run(SHIPPED.code_system("https://fhir-server.example/ig/CodeSystem/proxy-level"))
    assert found is not None
    assert "standard" in found.concepts
    assert asyncio.run(SHIPPED.code_system("http://snomed.info/sct")) is None


def test_each_file_of_the_guide_is_found_by_its_url_and_nothing_else_is() -> None:
    for kind, folder in (("CodeSystem", "codesystems"), ("ValueSet", "valuesets")):
        for file in (data_folder("ig") / folder).glob("*.json"):
            url = json.loads(file.read_bytes())["url"]
            found = asyncio.run(SHIPPED.find(kind, url))  # type: ignore[arg-type]
            assert found is not None and found.resource["url"] == url, file
    for name in ("../elements/x", "..", "nowhere", ""):
        assert asyncio.run(SHIPPED.find("ValueSet", f"https://fhir-server.example/ig/ValueSet/{name}")) is None
