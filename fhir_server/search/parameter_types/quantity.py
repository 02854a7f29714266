"""Search parameters of type ``quantity``: a number and an optional unit (http://hl7.org/fhir/R4/search.html#quantity).

Units are compared as written and never converted. A Range is found by either of its ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhir_server.search.escaping import split, unescape
from fhir_server.search.filters import QuantityIs
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext
from fhir_server.search.parameter_types.number import finite_float, parse_number

CURRENCY = "urn:iso:std:iso:4217"


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(number, system, code, unit) of a Quantity or Money, and of both ends of a Range."""
    if type(value) is not dict:
        return ()
    if "low" in value or "high" in value:
        return [(quantity, (end,)) for end in ("low", "high") if (quantity := _quantity(value.get(end)))]
    quantity = _quantity(value)
    return ((quantity, ()),) if quantity else ()


def _quantity(value: Any) -> tuple[float, str, str, str] | None:
    number = finite_float(value.get("value")) if type(value) is dict else None
    if number is None:
        return None
    if "currency" in value:
        return number, CURRENCY, value["currency"], ""
    return number, value.get("system", ""), value.get("code", ""), value.get("unit", "")


def parse_value(text: str, context: ValueContext) -> QuantityIs:
    """``[prefix]number``, ``[prefix]number|system|code``, or ``[prefix]number||unit``."""
    number, *unit = [unescape(part) for part in split(text, "|")]
    if not unit:
        return parse_number(number)
    if len(unit) != 2:
        raise ValueError("a quantity is written number, number|system|code or number||unit")
    system, code = unit
    return parse_number(number, system or None, code or None)


QUANTITY = ParameterType(
    "quantity", ("Quantity", "Range", "Age", "Duration", "Money", "Count", "Distance"), frozenset(), extract, parse_value
)
