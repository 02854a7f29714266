"""Numbers, with the precision their digits imply (http://hl7.org/fhir/R4/search.html#number)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, cast

from fhir_server.search.filters import Prefix, QuantityIs
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext

_NUMBER = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?([+-]?\d{1,64}(?:\.\d{1,64})?)(?:[eE]([+-]?\d{1,3}))?", re.ASCII)


def scalar(value: Any) -> float | None:
    """A JSON number as a float; None for what is none, or too large for one."""
    if type(value) is not int and not isinstance(value, Decimal | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(number, "", "", "") of a number, and of both ends of a Range."""
    if type(value) is dict:
        ends = ((value[end].get("value"), (end,)) for end in ("low", "high") if type(value.get(end)) is dict)
        return [((number, "", "", ""), (*path, "value")) for end, path in ends if (number := scalar(end)) is not None]
    number = scalar(value)
    return (((number, "", "", ""), ()),) if number is not None else ()


def compare(text: str, system: str | None = None, unit: str | None = None) -> QuantityIs:
    """``[prefix]number``: a number means the range its last digit leaves open, ``ap`` a tenth of it to either side."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError("a number is written [prefix]digits, with . for the decimal point")
    digits, exponent = Decimal(found[2]), int(found[3] or 0)
    open_ = Decimal(5).scaleb(_last_place(digits) + exponent - 1)
    # The R4 page reads 1e2 as [95, 105): a whole mantissa before an exponent counts as exact to one place more.
    half = open_ / 10 if found[3] and "." not in found[2] else open_
    value = digits.scaleb(exponent)
    reach = max(half, abs(value) / 10) if found[1] == "ap" else half
    low, middle, high = float(value - reach), float(value), float(value + reach)
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError("the number is too large")
    return QuantityIs(cast(Prefix, found[1] or "eq"), low, high, middle, system, unit)


def _last_place(digits: Decimal) -> int:
    exponent = digits.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def test(text: str, asked: ValueContext) -> QuantityIs:
    return compare(text)


KIND = ParameterType("quantity", ("Decimal", "Integer", "PositiveInt", "UnsignedInt", "Range"), frozenset(), extract, test)
