"""``_filter`` becomes the conditions of its comparisons, or is refused with the reason."""

from __future__ import annotations

import pytest

from fhir_server.errors import Problem
from fhir_server.search.criteria import criterion
from fhir_server.search.filter_expressions import MAX_COMPARISONS
from fhir_server.search.filters import AllOf, AnyOf, Filter, Has, Not, Present, RefersTo, RefersToMatch, TextIs, TokenIs, UnderUrl
from fhir_server.search.match import matches
from fhir_server.search.rows import Entry, SearchableRow

BASE = "https://ehr.example/fhir"


def ask(text: str, type: str = "Patient") -> Filter:
    return criterion(type, "_filter", text, 0, BASE)


def same(name: str, value: str, type: str = "Patient") -> Filter:
    return criterion(type, name, value, 0, BASE)


EQUAL = Has("name", TextIs("pet", "equal"))
FEMALE = same("gender", "female")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name eq "Pet"', EQUAL),
        ("name eq pet", EQUAL),
        ('name ne "pet"', Not(EQUAL)),
        ('name sw "pet"', Has("name", TextIs("pet", "prefix"))),
        ('name co "pet"', Has("name", TextIs("pet", "contains"))),
        ('name eq "a,b|\\"c\\""', Has("name", TextIs('a,b|"c"', "equal"))),
        ("gender eq female", FEMALE),
        ("gender eq female and name eq pet", AllOf((FEMALE, EQUAL))),
        ("gender eq female or name eq pet and name eq pet", AllOf((AnyOf((FEMALE, EQUAL)), EQUAL))),
        ("gender eq female or (name eq pet and name eq pet)", AnyOf((FEMALE, AllOf((EQUAL, EQUAL))))),
        ("not (gender eq female)", Not(FEMALE)),
        ("not(gender eq female)and(name eq pet)", AllOf((Not(FEMALE), EQUAL))),
        ("gender pr true", Present("gender", "token")),
        ("gender pr false", Not(Present("gender", "token"))),
        ("birthdate ge 1990-02", same("birthdate", "ge1990-02")),
        ("birthdate ne 1990", Not(same("birthdate", "1990"))),
        ("identifier eq urn:x|7", Has("identifier", TokenIs("urn:x", "7"))),
        ("organization re Organization/1", Has("organization", RefersTo(frozenset({"Organization/1"})))),
        ("organization.name sw n", RefersToMatch("organization", "Organization", Has("name", TextIs("n", "prefix")))),
    ],
)
def test_expression_is_compiled(text: str, expected: Filter) -> None:
    assert ask(text) == expected


def test_operators_of_quantities_and_urls_are_those_of_their_parameters() -> None:
    assert ask("value-quantity gt 5.4", "Observation") == same("value-quantity", "gt5.4", "Observation")
    assert ask("url ss http://x.example/a", "ValueSet") == Has("url", UnderUrl("http://x.example/a"))
    assert ask("url sb http://x.example/a", "ValueSet") == same("url:above", "http://x.example/a", "ValueSet")


REFUSED = [
    "", "name", "name eq", "name eq x and", "(name eq x", "name eq x)", "name eq x name eq y", "and", "not (name eq x", "name xx y",
    "gender co x", "name ew x", "identifier in http://vs", "name gt x", "nothing eq 1", "name:exact eq x", "name pr maybe",
    "birthdate ge x",
    "organization[name eq x].name eq y", "organization.nothing eq x", 'name eq "x', "name eq \"\\q\"", "(" * 30 + "name eq x" + ")" * 30,
    " and ".join(["name eq x"] * (MAX_COMPARISONS + 1)), "subject." * 400 + "name eq x", "generalPractitioner eq x",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        ask(text)
    assert refused.value.kind == "invalid"


def test_whole_text_is_compared_only_by_eq() -> None:
    def row(text: str) -> SearchableRow:
        return SearchableRow("Patient", "x", (), 0, 0, (Entry("name", "string", (text.casefold(), text)),))

    assert matches(ask("name eq pet"), row("Pet"), frozenset({0})) and not matches(ask("name eq pet"), row("Peter"), frozenset({0}))
    with pytest.raises(Problem, match="modifier 'equal'"):
        same("name:equal", "pet")
