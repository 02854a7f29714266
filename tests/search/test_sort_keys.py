"""The keys of ``_sort``: parameters, and chains to the values of other resources."""

from __future__ import annotations

import pytest

from fhir_server.errors import Problem
from fhir_server.search.query import Query, parse
from fhir_server.search.rows import SortKey, SortStep


def ask(type: str, sort: str, *, strict: bool = True) -> Query:
    return parse((type,), [("_sort", sort)], strict=strict, now=0, base="http://us.example/fhir")


def birth(descending: bool = False) -> SortKey:
    return SortKey("birthdate", "date", descending)


@pytest.mark.parametrize("text", ["subject:Patient.birthdate", "subject.birthdate", "patient.birthdate", "patient:Patient.birthdate"])
def test_chained_key_sorts_by_the_values_of_the_resources_named(text: str) -> None:
    step = SortStep("subject", "Patient", birth())
    assert ask("Observation", text).sort == (SortKey("birthdate", "date", False, (step,)),)
    assert ask("Observation", text).applied == (("_sort", text),)


def test_every_step_of_a_descending_key_descends() -> None:
    inner = SortKey("birthdate", "date", True, (SortStep("subject", "Patient", birth(True)),))
    assert ask("Observation", "-encounter:Encounter.patient.birthdate").sort == (
        SortKey("birthdate", "date", True, (SortStep("encounter", "Encounter", inner),)),
    )


def test_key_leads_to_all_types_that_have_the_parameter() -> None:
    (key,) = ask("Observation", "subject.name").sort
    assert {step.type for step in key.steps} == {"Patient", "Location"}
    assert {*key.sources("Observation")} == {("Patient", "name"), ("Location", "name")}


REFUSED = [
    ("Observation", "subject:Patient.brthdate", "Patient cannot be sorted by 'brthdate'. Did you mean 'birthdate'?"),
    ("Observation", "patient.brthdate", "Patient cannot be sorted by 'brthdate'. Did you mean 'birthdate'?"),
    ("Observation", "subject.colour", "No type to which 'subject' of Observation may lead can be sorted by 'colour'."),
    ("Observation", "code.text", "Observation has no reference parameter 'code'."),
    ("Observation", "subject:Practitioner.name", "The parameter 'subject' of Observation does not refer to 'Practitioner'."),
    ("Observation", "subject:Patient", "Observation cannot be sorted by 'subject:Patient'."),
    ("Observation", "subject:Patient.", "Patient cannot be sorted by ''."),
    ("Observation", "_has:Provenance:target:recorded", "Observation cannot be sorted by '_has:Provenance:target:recorded'."),
    ("AuditEvent", "patient.birthdate", "AuditEvent cannot be sorted by chained parameters."),
    ("Provenance", "target.value", "Name the type, as in target:"),
]


@pytest.mark.parametrize(("type", "key", "reason"), REFUSED)
def test_key_that_is_not_supported_is_refused_with_its_reason_if_strict_else_named(type: str, key: str, reason: str) -> None:
    with pytest.raises(Problem) as refused:
        ask(type, f"_id,{key}")
    assert refused.value.kind == "invalid" and reason in str(refused.value)
    lenient = ask(type, f"_id,{key}", strict=False)
    assert (lenient.sort, lenient.ignored) == ((SortKey("_id", "token"),), ("_sort",))


def test_number_of_steps_is_limited() -> None:
    with pytest.raises(Problem, match="at most 30 steps"):
        ask("Provenance", "target._id")
    with pytest.raises(Problem, match="at most 30 steps"):
        ask("Observation", ".".join(["derived-from:Observation"] * 31) + ".date")
