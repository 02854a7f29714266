"""Quantities: a number and, if asked for, its unit (http://hl7.org/fhir/R4/search.html#quantity).

Units are compared as written, never converted.  A Range is found by either of its ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhir_server.search.escaping import split, unescape
from fhir_server.search.filters import QuantityIs
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext
from fhir_server.search.parameter_types.number import compare, scalar

CURRENCY = "urn:iso:std:iso:4217"


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(number, system, code, unit) of a Quantity or Money, and of both ends of a Range."""
    if type(value) is not dict:
        return ()
    if "low" in value or "high" in value:
        return [(found, (end,)) for end in ("low", "high") if (found := _quantity(value.get(end)))]
    found = _quantity(value)
    return ((found, ()),) if found else ()


def _quantity(value: Any) -> tuple[float, str, str, str] | None:
    number = scalar(value.get("value")) if type(value) is dict else None
    if number is None:
        return None
    if "currency" in value:
        return number, CURRENCY, value["currency"], ""
    return number, value.get("system", ""), value.get("code", ""), value.get("unit", "")


def test(text: str, asked: ValueContext) -> QuantityIs:
    """``[prefix]number``, ``[prefix]number|system|code``, or ``[prefix]number||unit``."""
    number, *unit = [unescape(part) for part in split(text, "|")]
    if not unit:
        return compare(number)
    if len(unit) != 2:
        raise ValueError("a quantity is written number, number|system|code or number||unit")
    system, code = unit
    return compare(number, system or None, code or None)


KIND = ParameterType("quantity", ("Quantity", "Range", "Age", "Duration", "Money", "Count", "Distance"), frozenset(), extract, test)
