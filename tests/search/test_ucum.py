"""Units of UCUM: codes are read by its grammar, and quantities compared in all usual units that measure the same."""

from __future__ import annotations

import pytest

from fhir_server.errors import Problem
from fhir_server.search import ucum
from fhir_server.search.criteria import criterion
from fhir_server.search.match import matches
from fhir_server.search.rows import Entry, SearchableRow

CONVERTED = [
    (37, "Cel", "[degF]", 98.6), (98.6, "[degF]", "Cel", 37), (310.15, "K", "Cel", 37), (70, "kg", "g", 70000),
    (1, "[lb_av]", "g", 453.59237),
    (5.4, "mmol/L", "umol/dL", 540), (120, "mm[Hg]", "kPa", 15.99864), (1, "[psi]", "kPa", 6.894757293168361), (6, "10*3/uL", "10*9/L", 6),
    (90, "mg/dL", "g/L", 0.9), (1, "U/L", "nkat/L", 16.666666666666668), (72, "/min", "Hz", 1.2), (2, "mg/(24.h)", "mg/d", 2),
    (1, "[in_i]", "cm", 2.54), (25, "%", "1", 0.25), (1, "L", "dm3", 1), (1, "m2.kg-1", "m2/kg", 1), (50, "mL/min/{1.73_m2}", "mL/min", 50),
    (1, "atm", "mm[Hg]", 760.0021001785152), (1, "kcal", "kJ", 4.184),
]  # fmt: skip


@pytest.mark.parametrize(("value", "code", "other", "expected"), CONVERTED)
def test_value_is_converted_exactly(value: float, code: str, other: str, expected: float) -> None:
    one, two = ucum.unit(code), ucum.unit(other)
    assert one is not None and two is not None and one.dimensions == two.dimensions
    assert ucum.converted(value, one, two) == expected
    assert ucum.converted(expected, two, one) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("code", "other"), [("mmol/L", "meq/L"), ("mmol/L", "mg/L"), ("[IU]/L", "U/L"), ("kg", "m"), ("osm/L", "mol/L"), ("Cel", "J")]
)
def test_what_measures_something_else_is_not_comparable(code: str, other: str) -> None:
    assert other not in dict(ucum.comparable(code)) and ucum.comparable(code)


@pytest.mark.parametrize(
    "code",
    ["", "xyz", "/", "kg.", "kg/", "(m", "m)", "[pH]", "B[SPL]", "mCel", "kmin", "m10000000", "(" * 50 + "m" + ")" * 50, "m." * 60, "1e3"],
)
def test_other_codes_are_no_units(code: str) -> None:
    assert ucum.unit(code) is None and ucum.comparable(code) == ()


def test_a_code_has_few_usual_equals_so_that_a_search_can_begin_with_each() -> None:
    assert max(len(usual) for usual in ucum._usual().values()) < 24


def _finds(asked: str, number: float, code: str, param: str = "value-quantity") -> bool:
    entry = Entry(param, "quantity", (number, ucum.UCUM, code, code))
    row = SearchableRow("Observation", "x", (), 0, 0, (entry,))
    return matches(criterion("Observation", "value-quantity", asked, 0, ""), row, frozenset({0}))


FOUND = [
    ("gt71", "kg", 72000, "g"), ("70000", "g", 70, "kg"), ("37", "Cel", 98.6, "[degF]"), ("le37.5", "Cel", 310.6, "K"),
    ("ne70", "kg", 71000, "g"),
    ("70", "kg", 70, "kg"), ("lt1", "mg", 999, "ug"), ("ap100", "mg/dL", 1.05, "g/L"), ("sa5", "mmol/L", 5001, "umol/L"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "unit", "number", "code"), FOUND)
def test_quantity_is_found_in_another_unit(asked: str, unit: str, number: float, code: str) -> None:
    assert _finds(f"{asked}|{ucum.UCUM}|{unit}", number, code)
    assert not _finds(f"{asked}||{unit}", number, code) or code == unit  # without the system it is as written


@pytest.mark.parametrize(
    ("asked", "unit", "number", "code"),
    [
        ("gt71", "kg", 70999, "g"),
        ("gt71", "kg", 72000, "kg/m2"),
        ("ne70", "kg", 70000, "g"),
        ("gt37", "Cel", 98.6, "[degF]"),
        ("lt37", "Cel", 98.6, "[degF]"),
    ],
)
def test_control_is_not_found(asked: str, unit: str, number: float, code: str) -> None:
    assert not _finds(f"{asked}|{ucum.UCUM}|{unit}", number, code)


def test_unknown_code_matches_as_written() -> None:
    assert _finds(f"5|{ucum.UCUM}|[strange]", 5, "[strange]") and not _finds(f"5|{ucum.UCUM}|[strange]", 5, "g")


def test_quantities_with_units_in_one_parameter_are_limited() -> None:
    many = ",".join(f"{number}|{ucum.UCUM}|kg" for number in range(21))
    for name, value in (("value-quantity", many), ("code-value-quantity", ",".join(f"a${one}" for one in many.split(",")))):
        with pytest.raises(Problem, match="at most 20 quantities"):
            criterion("Observation", name, value, 0, "")
    assert criterion("Observation", "value-quantity", many.partition(",")[2], 0, "")
