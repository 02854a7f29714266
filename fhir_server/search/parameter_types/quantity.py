"""Search parameters of type ``quantity``: a number and an optional unit (http://hl7.org/fhir/R4/search.html#quantity).

A code of UCUM stands for all usual codes that measure the same, with the value converted (:mod:`fhir_server.search.ucum`); other units are
compared as written. A Range is found by either of its ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from fhir_server.search import ucum
from fhir_server.search.escaping import split, unescape
from fhir_server.search.filters import QuantityIs
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext
from fhir_server.search.parameter_types.number import finite_float, parse_number

MAX_QUANTITIES = 20
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


def require_few_quantities(kind: ParameterType, texts: Sequence[str]) -> None:
    """Require few values with units, each of which stands for many units.  Raises ValueError."""
    if kind is QUANTITY and sum("|" in text for text in texts) > MAX_QUANTITIES:
        raise ValueError(f"it may have at most {MAX_QUANTITIES} quantities with a unit")


def in_all_units(predicate: QuantityIs) -> tuple[QuantityIs, ...]:
    """The same condition in each unit of UCUM that measures the same; just itself for a quantity without a code of UCUM."""
    if predicate.system != ucum.UCUM or predicate.unit is None:
        return (predicate,)
    own, found = ucum.unit(predicate.unit), [predicate]
    for code, other in ucum.comparable(predicate.unit) if own is not None else ():
        if code != predicate.unit and own is not None:
            try:
                lo, hi, value = [ucum.converted(number, own, other) for number in (predicate.lo, predicate.hi, predicate.value)]
            except OverflowError:
                continue
            found.append(replace(predicate, lo=lo, hi=hi, value=value, unit=code))
    return tuple(found)


QUANTITY = ParameterType(
    "quantity", ("Quantity", "Range", "Age", "Duration", "Money", "Count", "Distance"), frozenset(), extract, parse_value
)
