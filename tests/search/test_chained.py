"""Chained parameters and ``_has`` are parsed to steps of the condition language, or refused with the reason."""

from __future__ import annotations

import asyncio

import pytest

from fhir_server.errors import Problem
from fhir_server.search import match
from fhir_server.search.criteria import criterion
from fhir_server.search.filters import AllOf, AnyOf, Filter, Has, IdIs, Not, ReferredBy, RefersTo, RefersToMatch, TextIs, TokenIs
from fhir_server.search.limits import MAX_STEPS
from fhir_server.search.query import parse
from fhir_server.search.rows import SearchableRow
from fhir_server.search.scope_conditions import condition as scope_condition
from fhir_server.search.steps import steps, with_visibilities
from fhir_server.search.visibility import Visibility

BASE = "https://ehr.example/fhir"
NAME = Has("name", TextIs("x", "prefix"))
CODE = Has("code", TokenIs(None, "x"))


def ask(type: str, name: str, value: str = "x") -> Filter:
    return criterion(type, name, value, 0, BASE)


@pytest.mark.parametrize(
    ("type", "name", "condition"),
    [
        ("Observation", "subject:Patient.name", RefersToMatch("subject", "Patient", NAME)),
        ("Observation", "patient.name", RefersToMatch("subject", "Patient", NAME)),
        ("Observation", "subject.name", AnyOf((RefersToMatch("subject", "Patient", NAME), RefersToMatch("subject", "Location", NAME)))),
        ("Observation", "patient.name:exact", RefersToMatch("subject", "Patient", Has("name", TextIs("x", "exact")))),
        ("Observation", "patient.gender:not", RefersToMatch("subject", "Patient", Not(Has("gender", TokenIs("", "x"))))),
        ("Observation", "patient._id", RefersToMatch("subject", "Patient", IdIs(frozenset({"x"})))),
        (
            "Observation",
            "patient.organization.name",
            RefersToMatch("subject", "Patient", RefersToMatch("organization", "Organization", NAME)),
        ),
        ("Patient", "_has:Observation:patient:code", ReferredBy("Observation", "subject", CODE)),
        ("Patient", "_list", ReferredBy("List", "item", IdIs(frozenset({"x"})))),
        ("Observation", "patient._list", RefersToMatch("subject", "Patient", ReferredBy("List", "item", IdIs(frozenset({"x"}))))),
        ("Patient", "_has:Observation:subject:code:not", ReferredBy("Observation", "subject", Not(CODE))),
        (
            "Patient",
            "_has:Encounter:patient:_has:Observation:encounter:code",
            ReferredBy("Encounter", "subject", ReferredBy("Observation", "encounter", CODE)),
        ),
        (
            "Practitioner",
            "_has:Observation:performer:patient.name",
            ReferredBy("Observation", "performer", RefersToMatch("subject", "Patient", NAME)),
        ),
        (
            "Encounter",
            "patient._has:Observation:patient:code",
            RefersToMatch("subject", "Patient", ReferredBy("Observation", "subject", CODE)),
        ),
        ("QuestionnaireResponse", "questionnaire.name", RefersToMatch("questionnaire", "Questionnaire", NAME, by_canonical=True)),
        ("Measure", "depends-on:Library.name", RefersToMatch("depends-on", "Library", NAME, by_canonical=True)),
        (
            "RequestGroup",
            "instantiates-canonical:Measure.name",
            RefersToMatch("instantiates-canonical", "Measure", NAME, by_canonical=True),
        ),
        ("ValueSet", "_has:ConceptMap:source:name", ReferredBy("ConceptMap", "source", NAME, by_canonical=True)),
        (
            "Observation",
            "patient.general-practitioner:Practitioner",
            RefersToMatch("subject", "Patient", Has("general-practitioner", RefersTo(frozenset({"Practitioner/x"})))),
        ),
    ],
)
def test_chain_is_parsed_to_steps_without_visibility(type: str, name: str, condition: Filter) -> None:
    found = ask(type, name)
    if "gender" not in name:  # its codes imply a system
        assert found == condition
    assert all(step.visibility is None for step in steps(found))
    assert len([*steps(found)]) >= 1


REFUSED = [
    ("Observation", "subject.nothing", "None of Group, Device, Patient, Location has the search parameter 'nothing'"),
    ("Observation", "subject:Patient.nothing", "Patient has no search parameter 'nothing'"),
    ("Observation", "patient.nothing.name", "Patient has no"),
    ("Observation", "subject:Practitioner.name", "does not refer to 'Practitioner'"),
    ("Observation", "code.text", "no reference parameter 'code'"),
    ("Observation", "nothing.name", "no reference parameter 'nothing'"),
    ("Observation", "patient.", "no search parameter ''"),
    ("Observation", ".name", "no reference parameter ''"),
    ("Observation", "patient.birthdate", "a date is written"),
    ("Observation", "patient._filter", "not supported"),
    ("Observation", "patient.name:below", "modifier 'below'"),
    ("Provenance", "target.identifier", "Name the type"),
    ("QuestionnaireResponse", "questionnaire.nothing", "Questionnaire has no search parameter 'nothing'"),
    ("QuestionnaireResponse", "questionnaire:Measure.name", "does not refer to 'Measure'"),
    ("Measure", "depends-on:Patient.name", "does not refer to 'Patient'"),
    ("Patient", "_has:PlanDefinition:depends-on:name", "does not refer to 'Patient'"),
    ("Patient", "_has:AuditEvent:patient:type", "leads to AuditEvents: most are lines of the audit log"),
    ("Provenance", "target:AuditEvent.type", "leads to AuditEvents: most are lines of the audit log"),
    ("AuditEvent", "entity:AuditEvent.type", "leads to AuditEvents: most are lines of the audit log"),
    ("Patient", "_has:Nothing:patient:code", "cannot look for 'Nothing'"),
    ("Patient", "_has:Observation:encounter:code", "does not refer to 'Patient'"),
    ("Patient", "_has:Observation:code:code", "no reference parameter 'code'"),
    ("Patient", "_has:Observation:patient", "_has:Type:reference parameter:search parameter"),
    ("Patient", "_has:Observation:patient:", "_has:Type:reference parameter:search parameter"),
    ("Patient", "_has", "_has:Type:reference parameter:search parameter"),
    ("Patient", "_has:Observation:patient:nothing", "no search parameter 'nothing'"),
    ("Patient", "_has:Observation:patient:" * (MAX_STEPS // 2) + "_has:Encounter:patient:status", "does not refer to 'Observation'"),
    ("Person", "link:Person." * (MAX_STEPS + 1) + "name", "at most 30 steps"),
    ("Provenance", "target.subject.subject.nothing", "at most 30 steps"),
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("type", "name", "said"), REFUSED)
def test_chain_that_leads_nowhere_is_refused_even_when_lenient(type: str, name: str, said: str, strict: bool) -> None:
    with pytest.raises(Problem, match=said) as refused:
        parse((type,), [(name, "gex")], strict=strict, now=0, base=BASE)
    assert refused.value.kind == "invalid"


def test_steps_of_all_parameters_are_limited_together() -> None:
    one = ("patient.organization.name", "x")
    pairs = [(one[0], f"x{number}") for number in range(MAX_STEPS // 2)]
    assert len([*steps(parse(("Observation",), pairs, strict=True, now=0, base=BASE).where)]) == MAX_STEPS
    with pytest.raises(Problem, match="at most 30 steps"):
        parse(("Observation",), [*pairs, one], strict=True, now=0, base=BASE)


def test_scope_with_a_chain_covers_nothing() -> None:
    assert scope_condition("Observation", [("code", "x")], BASE) is not None
    for name in ("patient.name", "_has:Provenance:target:agent"):
        assert scope_condition("Observation", [(name, "x")], BASE) is None


def test_step_without_visibility_or_rows_shows_nothing() -> None:
    class One:
        def named(self, name: str) -> SearchableRow:
            return SearchableRow("Patient", "p", (), 0, 0)

        def of_type(self, type: str) -> list[SearchableRow]:
            return [self.named("")]

    row = SearchableRow("Observation", "o", (), 0, 0)
    for step in (RefersToMatch("subject", "Patient", AllOf(())), ReferredBy("Patient", "link", AllOf(()))):
        assert not match.matches(step, row, frozenset({0}), One())
        with pytest.raises(TypeError):
            match.matches(step, row, frozenset({0}))


def test_types_without_a_scope_are_left_out_unless_all_are() -> None:
    seen = Visibility()

    async def only_patients(type: str, where: Filter) -> Visibility:
        if type != "Patient":
            raise Problem("forbidden", type)
        return seen

    filled = asyncio.run(with_visibilities(ask("Observation", "subject.name"), only_patients))
    assert filled == AnyOf((RefersToMatch("subject", "Patient", NAME, seen),))
    for where in (ask("Observation", "encounter.status"), ask("Observation", "subject:Location.name"), Not(ask("Group", "member.code"))):
        with pytest.raises(Problem, match=r"Encounter|EpisodeOfCare|Location|Group|Device|Medication|Substance"):
            asyncio.run(with_visibilities(where, only_patients))
