"""Extraction of index entries, and parameters that use the entries of other parameters."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.consent.labeling_run import patient_ids
from fhir_server.resources import definitions
from fhir_server.resources.definitions import SearchParameter
from fhir_server.search import index, query
from fhir_server.search.composites import composites
from fhir_server.search.implied_systems import implied_systems
from fhir_server.search.match import matches
from fhir_server.search.parameter_aliases import IndexedAs, index_forms
from fhir_server.search.rows import Entry, SearchableRow
from tests.search.samples import LAB, LOINC, RESOURCES

BASE = "http://us.example/fhir"


def found(resource: dict[str, Any]) -> tuple[Entry, ...]:
    return index.entries(resource["resourceType"], resource, BASE)


def holds(resource: dict[str, Any], *pairs: tuple[str, str]) -> bool:
    where = query.condition(resource["resourceType"], pairs, 0, BASE)
    owners = patient_ids(resource["resourceType"], resource)
    row = SearchableRow(resource["resourceType"], resource.get("id", "x"), owners, 0, 0, found(resource))
    return matches(where, row, frozenset({0}))


def test_lab_result_yields_the_expected_index_entries() -> None:
    assert {(entry.param, entry.kind, entry.value, entry.path) for entry in found(RESOURCES[0])} == {
        ("_profile", "reference", (LAB["meta"]["profile"][0],), ("meta", "profile", 0)),
        ("_source", "reference", ("urn:lab:1",), ("meta", "source")),
        ("identifier", "token", ("urn:lab", "123"), ("identifier", 0)),
        ("status", "token", ("", "final"), ("status",)),
        ("category", "token", (LAB["category"][0]["coding"][0]["system"], "laboratory"), ("category", 0, "coding", 0)),
        ("code", "token", (LOINC, "2339-0"), ("code", "coding", 0)),
        ("code", "token", ("urn:local", "GLU"), ("code", "coding", 1)),
        ("code:text", "string", ("glucose", ""), ("code", "text")),
        ("subject", "reference", ("Patient/p1",), ("subject", "reference")),
        ("encounter", "reference", ("Encounter/e1",), ("encounter", "reference")),
        ("date", "date", (1551672367000000, 1551672368000000), ("effectiveDateTime",)),
        ("performer", "reference", ("Practitioner/d1",), ("performer", 0, "reference")),
        ("value-quantity", "quantity", (5.4, "http://unitsofmeasure.org", "mmol/L", "mmol/l"), ("valueQuantity",)),
    }


@pytest.mark.parametrize("resource", RESOURCES)
def test_index_entries_are_unique_and_of_indexed_parameters(resource: dict[str, Any]) -> None:
    entries = found(resource)
    assert len(set(entries)) == len(entries)
    for entry in entries:
        if "$" in entry.param:
            assert entry.param.partition("$")[0] in composites(resource["resourceType"])
            continue
        param = entry.param.removesuffix(":of-type").removesuffix(":identifier").removesuffix(":text")
        form = index.indexed_as(resource["resourceType"], param)
        assert form == IndexedAs((param,)) or (form.limit and entry.param.endswith(":identifier"))
        assert entry.param not in ("_id", "_lastUpdated")


def test_repeated_name_is_indexed_once_per_parameter() -> None:
    twice = {"resourceType": "Patient", "name": [{"family": "A", "text": "A"}]}
    assert [entry.path for entry in found(twice) if entry.param == "name"] == [("name", 0, "text"), ("name", 0, "family")]
    assert [entry.path for entry in found(twice) if entry.param == "family"] == [("name", 0, "family")]


STANDS_FOR = [
    ("Observation", "patient", IndexedAs(("subject",), "Patient")),
    ("Observation", "combo-code", IndexedAs(("code", "component-code"))),
    ("Observation", "combo-value-quantity", IndexedAs(("component-value-quantity", "value-quantity"))),
    ("Appointment", "practitioner", IndexedAs(("actor",), "Practitioner")),
    ("AuditEvent", "patient", IndexedAs(("agent", "entity"), "Patient")),
    ("Patient", "phonetic", IndexedAs(("name",))),
    ("Patient", "family", IndexedAs(("family",))),
    ("AllergyIntolerance", "patient", IndexedAs(("patient",))),
    ("Observation", "subject", IndexedAs(("subject",))),
]


@pytest.mark.parametrize(("type", "param", "expected"), STANDS_FOR)
def test_redundant_parameter_maps_to_indexed_parameters(type: str, param: str, expected: IndexedAs) -> None:
    assert index.indexed_as(type, param) == expected


def test_partly_covered_parameter_is_indexed_itself() -> None:
    whole = SearchParameter("whole", "token", "T.a | T.b")
    part = SearchParameter("part", "token", "T.a")
    rest = SearchParameter("rest", "token", "T.b")
    other_kind = SearchParameter("rest", "string", "T.b")
    assert index_forms((whole, part))["whole"] == IndexedAs(("whole",))
    assert index_forms((whole, part, other_kind))["whole"] == IndexedAs(("whole",))
    assert index_forms((whole, part, rest))["whole"] == IndexedAs(("part", "rest"))


def test_system_is_implied_only_if_all_values_belong_to_it() -> None:
    assert implied_systems("Patient", "Patient.gender") == {"http://hl7.org/fhir/administrative-gender"}
    assert implied_systems("Patient", "Patient.gender | Patient.identifier") == frozenset()
    assert implied_systems("Patient", "Patient.maritalStatus") == frozenset()


def test_alias_targets_are_always_indexed_themselves() -> None:
    redundant = 0
    for type in definitions.types():
        for code, parameter in index.parameters(type).items():
            redundant += parameter.indexed_as.params != (code,)
            for param in parameter.indexed_as.params:
                assert index.indexed_as(type, param) == IndexedAs((param,))
                assert index.parameters(type)[param].kind == parameter.kind
    assert redundant > 50


def test_compartment_parameters_are_served() -> None:
    for type, codes in definitions.compartments()["Patient"].items():
        assert set(codes) <= {"", *index.parameters(type)}, type


def test_only_two_parameters_are_unsupported() -> None:
    left_out = {
        (type, parameter.code)
        for type in definitions.types()
        for parameter in definitions.search_parameters(type)
        if parameter.code not in {known.code for known in index.supported(type)}
    }
    assert left_out == {
        ("Bundle", "composition"),
        ("Bundle", "message"),
    }
    assert {"_id", "_lastUpdated", "patient", "combo-code"} <= {parameter.code for parameter in index.supported("Observation")}


def test_include_targets_come_from_the_parameter_itself() -> None:
    appointment = next(resource for resource in RESOURCES if resource["resourceType"] == "Appointment")
    assert index.targets("Appointment", "location", appointment, BASE) == ("Location/l1",)
    assert index.targets("Appointment", "actor", appointment, BASE)[:2] == ("Patient/p1", "Location/l1")
    assert index.targets("Appointment", "slot", appointment, BASE) == ()


# resource type, a query that matches its sample, a similar query that does not
FINDS = [
    ("Observation", ("patient", "p1"), ("patient", "p2")),
    ("Observation", ("patient", BASE + "/Patient/p1"), ("patient", "http://other.example/Patient/p1")),
    ("Observation", ("combo-code", LOINC + "|2339-0"), ("component-code", LOINC + "|2339-0")),
    ("Observation", ("value-quantity", "5.4|http://unitsofmeasure.org|mmol/L"), ("value-quantity", "5.4||mg")),
    ("Observation", ("date", "2019-03-04"), ("date", "2019-03-05")),
    ("Observation", ("code:not", "x,y"), ("code:not", "x,GLU")),
    ("Observation", ("value-concept:missing", "true"), ("value-quantity:missing", "true")),
    ("Observation", ("_id", "glucose,x"), ("_id:not", "glucose,x")),
    ("Patient", ("name", "muller"), ("name", "uller")),
    ("Patient", ("name:contains", "ULLER"), ("name:exact", "muller")),
    ("Patient", ("family:exact", "Müller"), ("given", "muller")),
    ("Patient", ("gender", "http://hl7.org/fhir/administrative-gender|female"), ("gender", "http://other.example|female")),
    ("Patient", ("telecom", "phone|555"), ("telecom", "email|555")),
    ("Patient", ("email", "a@b.example"), ("email", "555")),
    ("Patient", ("deceased", "true"), ("deceased", "false")),
    ("Patient", ("identifier", "|2"), ("identifier", "|1")),
    ("QuestionnaireResponse", ("questionnaire", "http://q.example/Questionnaire/phq"), ("questionnaire", "http://q.example/Questionnaire/phq|2")),
    ("QuestionnaireResponse", ("questionnaire", "http://q.example/Questionnaire/phq|1.2"), ("questionnaire", "phq")),
    ("Provenance", ("target", "Observation/o"), ("target", "Observation/o2")),
    ("AuditEvent", ("patient", "p1"), ("patient:Patient", "p2")),
    ("RiskAssessment", ("probability", "0.25"), ("probability", "gt0.25")),
]  # fmt: skip


@pytest.mark.parametrize(("type", "pair", "control"), FINDS)
def test_query_matches_its_resource_and_its_control_does_not(type: str, pair: tuple[str, str], control: tuple[str, str]) -> None:
    resource = next(resource for resource in RESOURCES if resource["resourceType"] == type)
    assert holds(resource, pair)
    assert not holds(resource, control)


def test_patient_without_recorded_death_is_not_deceased() -> None:
    _, said_no, silent = [resource for resource in RESOURCES if resource["resourceType"] == "Patient"]
    for resource in (said_no, silent):
        assert found(resource) == ()
        assert holds(resource, ("deceased", "false"))
        assert not holds(resource, ("deceased", "true"))


def test_malformed_elements_are_skipped() -> None:
    corners = {"code": [None], "subject": "x", "performer": [None, {"reference": "#a"}], "status": None}
    assert {entry.param for entry in found({"resourceType": "Observation", **corners})} == {"subject"}
