"""Regular expressions of value sets mean what Python's mean, and none takes long."""

from __future__ import annotations

import random
import re

import pytest

from fhir_server.terminology import regular_expressions

EXPRESSIONS = (
    "a", "ab|c", "a*b+", "(a|b)*c", "a{2}", "a{1,3}b?", "a{2,}", "[a-c]+", "[^a]b", r"\d+\.\d*", r"\w-\w", "", "a||b", "(?:ab)+", "^ab$",
    "[]a]b", "[a-]", r"[\d.]+", r"\.", ".", "(a*)*b", "((a|b)(c|)){1,2}", r"[\]a]", r"a\$", r"[\--a]",
)  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_matches_as_python_s_does(expression: str) -> None:
    compiled, expected = regular_expressions.compile(expression), re.compile(expression)
    drawn = random.Random(expression)
    for _ in range(300):
        text = "".join(drawn.choice("abc1.-]$") for _ in range(drawn.randrange(6)))
        assert compiled.matches(text) == (expected.fullmatch(text) is not None), text


@pytest.mark.parametrize("expression", ["(a+)+b", "(a|a)*b", "(a*)*b", "(.*)(.*)(.*)(.*)b", "a?" * 30 + "a" * 30])
def test_an_expression_that_explodes_elsewhere_visits_few_states(expression: str) -> None:
    compiled = regular_expressions.compile(expression)
    visited = 0
    exact = compiled._closure

    def counted(states: set[int]) -> set[int]:
        nonlocal visited
        found = exact(states)
        visited += len(found)
        return found

    compiled._closure = counted  # type: ignore[method-assign]
    compiled.matches("a" * 1000)
    assert visited <= 1001 * len(compiled._next)


@pytest.mark.parametrize(
    "expression", ["(a", "a)", "[a", "*a", "a**", "a{2", "a{3,1}", r"\p{L}", r"\b", "(?=a)", "(?P<n>a)", "a\\", "a^b", "(" * 30, "a" * 600,
                   "a{9999}", "((a{99}){99}){99}"]
)  # fmt: skip
def test_an_expression_that_is_not_supported_or_too_large_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        regular_expressions.compile(expression)


def test_a_text_without_end_does_not_match() -> None:
    assert regular_expressions.compile("a*").matches("a" * 1000)
    assert not regular_expressions.compile("a*").matches("a" * 1001)
