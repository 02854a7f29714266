"""Parsing of query strings, and the parameters that are rejected."""

from __future__ import annotations

import pytest

from fhir_server.errors import Problem
from fhir_server.search.criteria import refers
from fhir_server.search.filters import (
    EVERYTHING,
    NOTHING,
    AllOf,
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    Not,
    OfPatient,
    Present,
    RefersTo,
    TextIs,
    TokenIs,
)
from fhir_server.search.query import Query, condition, parse
from fhir_server.search.result_parameters import DEFAULT_COUNT, DEFAULT_TOTAL, MAX_COUNT, Include
from fhir_server.search.rows import SortKey

BASE = "http://us.example/fhir"
DAY = 86_400_000_000


def ask(type: str, *pairs: tuple[str, str], strict: bool = True) -> Query:
    return parse((type,), pairs, strict=strict, now=0, base=BASE)


def one(type: str, name: str, value: str) -> Filter:
    where = ask(type, (name, value)).where
    assert isinstance(where, AllOf)
    (part,) = where.parts
    return part


def token(param: str, code: str, system: str | None = None) -> Has:
    return Has(param, TokenIs(system, code))


def to(param: str, *targets: str) -> Has:
    return Has(param, RefersTo(frozenset(targets)))


def owned(condition: Has, *patients: str) -> AllOf:
    """By a parameter that names the patients to whom a row belongs."""
    return AllOf((condition, OfPatient(frozenset(patients))))


ASKS = [
    ("Observation", "code", "a", token("code", "a")),
    ("Observation", "code", "a,b", AnyOf((token("code", "a"), token("code", "b")))),
    ("Observation", "code", r"a\,b", token("code", "a,b")),
    ("Observation", "code:not", "a,b", Not(AnyOf((token("code", "a"), token("code", "b"))))),
    ("Observation", "code:missing", "true", Not(Present("code", "token"))),
    ("Observation", "code:missing", "false", Present("code", "token")),
    ("Observation", "combo-code:missing", "true", Not(AnyOf((Present("code", "token"), Present("component-code", "token"))))),
    ("Observation", "combo-code", "a", AnyOf((token("code", "a"), token("component-code", "a")))),
    ("Observation", "status", "http://hl7.org/fhir/observation-status|final", token("status", "final", "")),
    ("Observation", "subject", "Patient/1,Group/2", to("subject", "Patient/1", "Group/2")),
    ("Observation", "subject:Patient", "1", owned(to("subject", "Patient/1"), "1")),
    ("Observation", "subject", "1", to("subject", "Patient/1", "Group/1", "Device/1", "Location/1")),
    ("Observation", "patient", "1", owned(to("subject", "Patient/1"), "1")),
    ("Observation", "patient", "1,Patient/2", owned(to("subject", "Patient/1", "Patient/2"), "1", "2")),
    ("Observation", "performer", "Patient/1", to("performer", "Patient/1")),
    ("Observation", "subject", "Patient/1", owned(to("subject", "Patient/1"), "1")),
    ("Observation", "patient", "Group/1", NOTHING),
    ("Observation", "patient", "Group/1,2", owned(to("subject", "Patient/2"), "2")),
    ("Observation", "_id", "a,b", IdIs(frozenset({"a", "b"}))),
    ("Observation", "_id:not", "a", Not(IdIs(frozenset({"a"})))),
    ("Observation", "_id:missing", "true", NOTHING),
    ("Observation", "_id:missing", "false", EVERYTHING),
    ("Observation", "_lastUpdated", "ge1970-01-02", Has("_lastUpdated", DateIs("ge", DAY, 2 * DAY))),
    ("Observation", "_profile", "http://p|1", to("_profile", "http://p|1")),
    ("Observation", "_tag", "s|t", token("_tag", "t", "s")),
    ("Observation", "_security", "s|t", token("_security", "t", "s")),
    ("Observation", "_source", "urn:x", to("_source", "urn:x")),
    ("Patient", "name:exact", "A", Has("name", TextIs("A", "exact"))),
    ("Patient", "phonetic", "A", Has("name", TextIs("a", "prefix"))),
    ("Patient", "active", "http://hl7.org/fhir/special-values|true", token("active", "true", "")),
    ("Patient", "deceased", "false", Not(token("deceased", "true"))),
    ("Patient", "deceased:not", "false", Not(Not(token("deceased", "true")))),
    ("Patient", "deceased:missing", "true", NOTHING),
]


@pytest.mark.parametrize(("type", "name", "value", "expected"), ASKS)
def test_search_parameter_parses_to_the_expected_filter(type: str, name: str, value: str, expected: Filter) -> None:
    assert one(type, name, value) == expected
    assert condition(type, [(name, value)], 0, BASE) == AllOf((expected,))


def test_parameters_are_combined_by_and_none_matches_all() -> None:
    assert ask("Observation", ("code", "a"), ("code", "b")).where == AllOf((token("code", "a"), token("code", "b")))
    assert ask("Observation").where == EVERYTHING


# Refused in strict and lenient mode: ignoring one of these would change the meaning of the search.
REFUSED = [
    ("Observation", "code-value-quantity", "a$b", "number"),
    ("Observation", "code-value-quantity", "a", "code.value"),
    ("Observation", "combo-code-value-quantity", "a$1$2", "code.value"),
    ("Observation", "code-value-quantity", "http://s|$1", "must have a code"),
    ("Observation", "code-value-quantity:missing", "true", "modifier 'missing'"),
    ("Patient", "identifier:of-type", "MR|1", "system.code.value"),
    ("Observation", "code:of-type", "s|c|v", "modifier 'of-type'"),
    ("QuestionnaireResponse", "questionnaire:identifier", "s|v", "modifier 'identifier'"),
    ("Location", "near", "1", "latitude|longitude|distance|unit"),
    ("Location", "near", "91|2", "from -90 to 90"),
    ("Location", "near", "1|181", "from -180 to 180"),
    ("Location", "near", "|2", "from -90 to 90"),
    ("Location", "near", "1|x", "are numbers"),
    ("Location", "near", "1|nan", "are numbers"),
    ("Location", "near", "1|2|3|leagues", r"one of km, m, cm, \[mi_i\]"),
    ("Location", "near", "1|2|-3", "0 or more"),
    ("Location", "near:exact", "1|2", "modifier 'exact'"),
    ("Observation", "_filter", "code co a", "not supported"),
    ("Observation", "_filter", "code in a", "canonical URL"),
    ("Observation", "code:in", "", "empty"),
    ("Observation", "code:below", "718-7", "system.code"),
    ("Patient", "identifier:in", "urn:v", "modifier 'in'"),
    ("Patient", "active:in", "urn:v", "modifier 'in'"),
    ("Patient", "telecom:below", "a|b", "modifier 'below'"),
    ("Observation", "_filter:not", "code eq a", "not supported"),
    ("Observation", "_query", "x", "not supported"),
    ("Observation", "_text:missing", "true", "modifier 'missing'"),
    ("Observation", "_content:contains", "x", "modifier 'contains'"),
    ("Observation", "_text", "", "at least one word"),
    ("Observation", "_text", "a,,b", "at least one word"),
    ("Observation", "_content", "(a or) b", "at least one word"),
    ("Observation", "_content", "(a", "does not end"),
    ("Observation", "_content", "a) b", "does not begin"),
    ("Observation", "_content", '"a b"', "phrases"),
    ("Observation", "_content", "a " * 31, "more than 30 words"),
    ("Observation", "_content", "a" * 101, "at most 100 characters"),
    ("Observation", "status:text", "final", "modifier 'text'"),
    ("Observation", "code:text", " ", "empty"),
    ("Observation", "_list", "$current-problems", "id of a List"),
    ("Observation", "_list", "a,,b", "id of a List"),
    ("Observation", "_list:not", "a", "modifier 'not'"),
    ("Observation", "code:", "x", "modifier ''"),
    ("Observation", "code:exact", "x", "modifier 'exact'"),
    ("Observation", "subject:Practitioner", "1", "modifier 'Practitioner'"),
    ("Observation", "patient:missing", "true", "modifier 'missing'"),
    ("Observation", "date:not", "2020", "modifier 'not'"),
    ("Observation", "_profile:below", "urn:oid:1.2", "must be a URL"),
    ("Observation", "code", "", "empty"),
    ("Observation", "code", "a,,b", "empty"),
    ("Observation", "code:missing", "maybe", "true or false"),
    ("Observation", "date", "gt2020-13-01", "does not exist"),
    ("Observation", "value-quantity", "high", "number"),
    ("Observation", "subject", "a b", "reference"),
    ("Patient", "deceased", "yes", "true or false"),
    ("Patient", "name", " ", "empty"),
    ("Observation", "_count", "-1", "whole number"),
    ("Observation", "_count", "ten", "whole number"),
    ("Observation", "_count", "²", "whole number"),
    ("Observation", "_count:exact", "1", "modifier 'exact'"),
    ("Observation", "_total", "all", "one of"),
    ("Observation", "_summary", "yes", "one of"),
    ("Observation", "_elements", "code,name.family", "element names"),
    ("Observation", "_include", "Observation:*:Patient", "Type:parameter"),
    ("Observation", "_include", "Condition:*", "starts from Condition"),
    ("Observation", "_include:reverse", "Observation:has-member", "modifier 'reverse'"),
    ("Observation", "_sort:iterate", "date", "modifier 'iterate'"),
    ("Observation", "_include", "Observation:subjekt", "Did you mean 'subject'"),
    ("Observation", "_include", "Observation", "Type:parameter"),
    ("Observation", "_include", "Nothing:subject", "Type:parameter"),
    ("Observation", "_include", "Observation:code", "no reference parameter"),
    ("Observation", "_include", "Observation:nothing", "no reference parameter"),
    ("Observation", "_include", "Observation:subject:Practitioner", "does not refer"),
    ("Observation", "_include", "Condition:subject", "starts from Condition"),
    ("Observation", "_revinclude", "Condition:asserter", "cannot refer to Observation"),
    ("Patient", "_revinclude", "Observation:subject:Group", "cannot refer to Patient"),
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("type", "name", "value", "said"), REFUSED)
def test_unanswerable_parameter_is_refused_even_when_lenient(type: str, name: str, value: str, said: str, strict: bool) -> None:
    with pytest.raises(Problem, match=said) as refused:
        ask(type, (name, value), strict=strict)
    assert refused.value.kind == "invalid"


def test_unknown_parameter_is_refused_if_strict_else_ignored() -> None:
    pairs = [("code", "a"), ("colour", "red"), ("colour:exact", "red"), ("code", "b")]
    with pytest.raises(Problem, match="no search parameter 'colour'"):
        ask("Observation", *pairs)
    lenient = ask("Observation", *pairs, strict=False)
    assert lenient.where == AllOf((token("code", "a"), token("code", "b")))
    assert lenient.applied == (("code", "a"), ("code", "b"))
    assert lenient.ignored == ("colour", "colour:exact")


def test_wildcard_includes_name_every_reference_parameter() -> None:
    every = ask("Observation", ("_include", "*")).includes
    assert every == ask("Observation", ("_include", "Observation:*")).includes
    assert {Include("Observation", "subject"), Include("Observation", "performer")} <= set(every)
    back = ask("Observation", ("_revinclude", "*")).revincludes
    assert Include("DiagnosticReport", "result") in back and Include("Condition", "asserter") not in back
    assert ask("Observation", ("_revinclude", "Provenance:*")).revincludes == (
        Include("Provenance", "entity"), Include("Provenance", "target"),
    )  # fmt: skip


@pytest.mark.parametrize("modifier", ["iterate", "recurse"])
def test_iterating_include_may_begin_at_another_type(modifier: str) -> None:
    query = ask("Observation", (f"_include:{modifier}", "Encounter:service-provider"), (f"_revinclude:{modifier}", "Condition:asserter"))
    assert query.includes == (Include("Encounter", "service-provider", iterates=True),)
    assert query.revincludes == (Include("Condition", "asserter", iterates=True),)
    assert query.applied[0] == (f"_include:{modifier}", "Encounter:service-provider")


def test_search_of_several_types_has_a_condition_for_each() -> None:
    query = parse(("Condition", "Observation"), [("code", "a"), ("_count", "3")], strict=True, now=0, base=BASE)
    assert query.conditions == {type: AllOf((token("code", "a"),)) for type in ("Condition", "Observation")}
    with pytest.raises(Problem, match="Condition has no search parameter 'value-quantity'"):
        parse(("Condition", "Observation"), [("value-quantity", "1")], strict=True, now=0, base=BASE)
    with pytest.raises(Problem, match="cannot be sorted"):
        parse(("Condition", "Observation"), [("_sort", "code")], strict=False, now=0, base=BASE)


def test_error_about_an_unknown_name_suggests_the_nearest_one() -> None:
    with pytest.raises(Problem, match=r"no search parameter 'staus'\. Did you mean 'status'\? Valid names: .*'?_count.*value-quantity"):
        ask("Observation", ("staus", "final"))
    with pytest.raises(Problem, match=r"cannot be sorted by 'dat'\. Did you mean 'date'\?"):
        ask("Observation", ("_sort", "dat"))


def test_condition_accepts_only_search_parameters() -> None:
    for name, value in [("colour", "red"), ("_count", "1"), ("_sort", "date"), ("_format", "json")]:
        with pytest.raises(Problem, match="no search parameter"):
            condition("Observation", [(name, value)], 0, BASE)


def test_search_result_parameters_are_parsed() -> None:
    query = ask(
        "Observation",
        ("_sort", "-date,_id,_lastUpdated,code"),
        ("_count", "7"),
        ("_total", "none"),
        ("_summary", "text"),
        ("_elements", "code,status"),
        ("_include", "Observation:subject"),
        ("_include", "Observation:patient:Patient"),
        ("_revinclude", "Provenance:target"),
        ("_format", "json"),
        ("_pretty", "true"),
        ("_page", "cursor"),
    )
    sort = (SortKey("date", "date", True), SortKey("_id", "token"), SortKey("_lastUpdated", "date"), SortKey("code", "token"))
    assert query.sort == sort
    assert (query.count, query.total, query.summary, query.cursor) == (7, "none", "text", "cursor")
    assert query.elements == ("code", "status")
    assert query.includes == (Include("Observation", "subject"), Include("Observation", "patient", "Patient"))
    assert query.revincludes == (Include("Provenance", "target"),)
    assert "_page" not in dict(query.applied)
    assert dict(query.applied)["_pretty"] == "true"
    assert query.ignored == ()


@pytest.mark.parametrize(("value", "total"), [("count", "accurate"), ("estimate", "estimate"), ("none", "none")])
def test_total_can_be_asked_for_by_the_name_that_fhirpy_uses(value: str, total: str) -> None:
    assert ask("Observation", ("_totalMethod", value)).total == total
    with pytest.raises(Problem, match="one of count, estimate, none"):
        ask("Observation", ("_totalMethod", "accurate"))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("value", ["true", "both"])
def test_search_of_contained_resources_is_refused_and_never_ignored(value: str, strict: bool) -> None:
    with pytest.raises(Problem, match="Contained resources are not searched"):
        ask("Observation", ("_contained", value), strict=strict)


def test_search_may_say_that_contained_resources_are_not_searched() -> None:
    assert ask("Observation", ("_contained", "false"), ("_containedType", "contained")).where == EVERYTHING
    for pair in (("_contained", "no"), ("_containedType", "all")):
        with pytest.raises(Problem, match="it must be one of"):
            ask("Observation", pair)


def test_omitted_result_parameters_have_defaults() -> None:
    assert ask("Observation") == Query({"Observation": EVERYTHING}, (), DEFAULT_COUNT, DEFAULT_TOTAL, "false")


ONLY_COUNT = [
    [("_count", "0")],
    [("_summary", "count")],
    [("_count", "0"), ("_summary", "true")],
    [("_count", "5"), ("_summary", "count")],
    [("_summary", "count"), ("_count", "5")],
]


@pytest.mark.parametrize("pairs", ONLY_COUNT)
def test_count_zero_is_equivalent_to_summary_count(pairs: list[tuple[str, str]]) -> None:
    query = ask("Observation", *pairs)
    assert (query.count, query.summary) == (0, "count")


def test_page_size_is_capped_and_shown_in_self_link() -> None:
    query = ask("Observation", ("_count", "999999"))
    assert query.count == MAX_COUNT
    assert query.applied == (("_count", str(MAX_COUNT)),)


@pytest.mark.parametrize("key", ["colour", "patient", "combo-code", "", "code-value-quantity"])
def test_unsortable_key_is_refused_if_strict_else_ignored(key: str) -> None:
    with pytest.raises(Problem, match="cannot be sorted"):
        ask("Observation", ("_sort", f"date,{key}"))
    lenient = ask("Observation", ("_sort", f"date,-{key}"), strict=False)
    assert lenient.sort == (SortKey("date", "date"),)
    assert lenient.applied == (("_sort", "date"),)
    assert lenient.ignored == ("_sort",)


def test_alias_sort_key_sorts_by_its_target() -> None:
    assert ask("Patient", ("_sort", "phonetic")).sort == (SortKey("name", "string"),)


@pytest.mark.parametrize("name", ["_count", "_sort", "_summary", "_total", "_elements", "_page"])
def test_repeated_result_parameter_is_refused(name: str) -> None:
    value = {"_count": "1", "_summary": "true", "_total": "none"}.get(name, "code")
    with pytest.raises(Problem, match="once"):
        ask("Observation", (name, value), (name, value))


def test_reference_condition_uses_the_indexed_parameters() -> None:
    assert refers("Observation", "patient", frozenset({"Patient/1", "Group/1"})) == to("subject", "Patient/1")
    either = AnyOf((to("agent", "Patient/1"), to("entity", "Patient/1")))
    assert refers("AuditEvent", "patient", frozenset({"Patient/1"})) == either
