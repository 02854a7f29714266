"""Search parameters of type ``number``, with the precision that their digits imply (http://hl7.org/fhir/R4/search.html#number)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, cast

from fhir_server.search.filters import Prefix, QuantityIs
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext

_NUMBER = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?([+-]?\d{1,64}(?:\.\d{1,64})?)(?:[eE]([+-]?\d{1,3}))?", re.ASCII)


def finite_float(value: Any) -> float | None:
    """A JSON number as a float; None for any other value, and for a number that no float can hold."""
    if type(value) is not int and not isinstance(value, Decimal | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(number, "", "", "") of a number, and of both ends of a Range."""
    if type(value) is dict:
        ends = ((value[end].get("value"), (end,)) for end in ("low", "high") if type(value.get(end)) is dict)
        return [((number, "", "", ""), (*path, "value")) for end, path in ends if (number := finite_float(end)) is not None]
    number = finite_float(value)
    return (((number, "", "", ""), ()),) if number is not None else ()


def parse_number(text: str, system: str | None = None, unit: str | None = None) -> QuantityIs:
    """``[prefix]number``, with an optional unit to match.

    A number means the range of all numbers that round to it; ``ap`` means a tenth of its value to either side.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError("a number is written [prefix]digits, with . for the decimal point")
    digits, exponent = Decimal(match[2]), int(match[3] or 0)
    half_unit = Decimal(5).scaleb(_last_place(digits) + exponent - 1)
    # The R4 page reads 1e2 as [95, 105): a whole mantissa before an exponent is exact to one more place.
    precision = half_unit / 10 if match[3] and "." not in match[2] else half_unit
    value = digits.scaleb(exponent)
    margin = max(precision, abs(value) / 10) if match[1] == "ap" else precision
    low, middle, high = float(value - margin), float(value), float(value + margin)
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError("the number is too large")
    return QuantityIs(cast(Prefix, match[1] or "eq"), low, high, middle, system, unit)


def _last_place(digits: Decimal) -> int:
    exponent = digits.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def parse_value(text: str, context: ValueContext) -> QuantityIs:
    """``[prefix]number``."""
    return parse_number(text)


NUMBER = ParameterType("quantity", ("Decimal", "Integer", "PositiveInt", "UnsignedInt", "Range"), frozenset(), extract, parse_value)
