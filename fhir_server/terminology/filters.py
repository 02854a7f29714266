"""The filters of a value set's include: a test of each concept (http://hl7.org/fhir/R4/valueset-filter-operator.html)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from fhir_server.terminology import regular_expressions
from fhir_server.terminology.code_system import CodeSystem, Concept
from fhir_server.terminology.problems import malformed

Test = Callable[[Concept], bool]
Values = Callable[[Concept], list[str]]

CODES: Final = frozenset({"concept", "code"})
_BUILT_IN: Final[dict[str, Values]] = {
    **dict.fromkeys(CODES, lambda concept: [concept.code]),
    "display": lambda concept: [concept.display] if concept.display else [],
    "definition": lambda concept: [concept.definition] if concept.definition else [],
    "parent": lambda concept: concept.parents,
    "child": lambda concept: concept.children,
    "inactive": lambda concept: ["true" if concept.is_inactive else "false"],
}


def test_of(filters: Sequence[dict[str, Any]], system: CodeSystem) -> Test:
    """The test that a concept passes all filters.  Raises Problem ``unprocessable`` for a filter that cannot be followed."""
    tests = [_test(str(one.get("property")), str(one.get("op")), str(one.get("value")), system) for one in filters]
    return lambda concept: all(test(concept) for test in tests)


def _test(property: str, operator: str, value: str, system: CodeSystem) -> Test:
    values = _values(property, system)
    if operator in _HIERARCHY:
        if system.find(value) is None:
            raise malformed(f"A filter names the code {value[:200]!r}, which {system.url} does not have.")
        related, is_within = _HIERARCHY[operator](system, value), operator != "is-not-a"
        return lambda concept: any(one in related for one in values(concept)) == is_within
    if operator in ("in", "not-in"):
        named, is_in = frozenset(code.strip() for code in value.split(",")), operator == "in"
        return lambda concept: any(one in named for one in values(concept)) == is_in
    if operator == "exists":
        if value not in ("true", "false"):
            raise malformed("The value of the filter 'exists' must be true or false.")
        return lambda concept: bool(values(concept)) == (value == "true")
    if operator == "regex":
        try:
            expression = regular_expressions.compile(value)
        except ValueError as error:
            raise malformed(f"The regular expression {value[:200]!r} is not supported: {error}.") from None
        return lambda concept: any(expression.matches(one) for one in values(concept))
    if operator == "=":
        return lambda concept: value in values(concept)
    raise malformed(f"The filter operator {operator[:40]!r} is not one of R4's.")


def _values(property: str, system: CodeSystem) -> Values:
    if property in system.property_types and property not in _BUILT_IN:
        return lambda concept: concept.values(property)
    if property in _BUILT_IN:
        return _BUILT_IN[property]
    raise malformed(f"The code system {system.url} has no property {property[:100]!r}, by which a value set filters it.")


_HIERARCHY: Final[dict[str, Callable[[CodeSystem, str], frozenset[str]]]] = {
    "is-a": lambda system, code: system.descendants(code),
    "descendent-of": lambda system, code: system.descendants(code) - {code},
    "is-not-a": lambda system, code: system.descendants(code),
    "generalizes": lambda system, code: system.ancestors(code),
}
