"""What a query string may have at most: parameters, values, conditions, sort keys, characters."""

from __future__ import annotations

import pytest

from fhir_server.errors import Problem
from fhir_server.search.filters import AllOf, Has, TextIs
from fhir_server.search.limits import MAX_CONDITIONS, MAX_CONTAINED, MAX_PAIRS, MAX_SORT_KEYS, MAX_VALUES
from fhir_server.search.query import condition
from tests.search.test_query import BASE, ask, one, token


def test_number_of_parameters_and_values_is_limited() -> None:
    most = [("code", "a")] * MAX_PAIRS
    values = [("code", ",".join(["a"] * MAX_VALUES))]
    assert ask("Observation", *most).where
    assert ask("Observation", *values).where
    with pytest.raises(Problem, match="at most 200"):
        ask("Observation", *most, ("code", "a"))
    with pytest.raises(Problem, match="at most 500"):
        ask("Observation", *values, ("code", "a"))
    with pytest.raises(Problem, match="at most 500"):
        condition("Observation", [*values, ("code", "a")], 0, BASE)


def test_equal_conditions_count_once_and_different_ones_are_limited() -> None:
    assert ask("Observation", *[("code", "a")] * 5, ("code", "b"), ("code", "a")).where == AllOf((token("code", "a"), token("code", "b")))
    most = [("value-quantity", f"gt{number},lt{number}") for number in range(MAX_CONDITIONS)]
    assert len(ask("Observation", *most, *most).where.parts) == MAX_CONDITIONS  # type: ignore[union-attr]
    for more in ("date:missing", "subject:missing"):
        with pytest.raises(Problem, match=f"at most {MAX_CONDITIONS} different conditions"):
            ask("Observation", *most, (more, "true"))
        with pytest.raises(Problem, match=f"at most {MAX_CONDITIONS} different conditions"):
            condition("Observation", [*most, (more, "true")], 0, BASE)


def test_number_of_sort_keys_is_limited() -> None:
    assert len(ask("Observation", ("_sort", ",".join(["date"] * MAX_SORT_KEYS))).sort) == MAX_SORT_KEYS
    for key in ("date", "-date", "colour"):
        with pytest.raises(Problem, match=f"at most {MAX_SORT_KEYS} sort keys"):
            ask("Observation", ("_sort", ",".join([key] * (MAX_SORT_KEYS + 1))))


def test_text_to_look_for_inside_others_is_limited() -> None:
    longest = "é" * MAX_CONTAINED
    assert one("Patient", "name:contains", longest) == Has("name", TextIs("e" * MAX_CONTAINED, "contains"))
    with pytest.raises(Problem, match=f"at most {MAX_CONTAINED} characters"):
        ask("Patient", ("name:contains", longest + "x"))
    assert ask("Patient", ("name", longest + "x"), ("name:exact", longest + "x")).where


@pytest.mark.parametrize(
    "pair",
    [
        ("_id", "a\0"),
        ("_id", "a,\0,b"),
        ("subject", "urn:\0"),
        ("code", "s|\0"),
        ("\0", "a"),
        ("_sort", "\0"),
        ("_format", "\0"),
        ("date", "\0"),
    ],
)
def test_nul_in_a_search_is_refused_with_one_text(pair: tuple[str, str]) -> None:
    with pytest.raises(Problem, match=r"contains the character U\+0000"):
        ask("Observation", ("code", "a"), pair)
    with pytest.raises(Problem, match=r"contains the character U\+0000"):
        condition("Observation", [pair], 0, BASE)
