"""Compiles ``code$value`` of a composite search parameter to the condition language (:mod:`fhir_server.search.composites`)."""

from __future__ import annotations

from typing import Final

from fhir_server.search.composites import Composite, pair_name
from fhir_server.search.escaping import split
from fhir_server.search.filters import AllOf, AnyOf, Filter, Has, NumbersAre, QuantityIs, TokenIs
from fhir_server.search.index import indexed_as
from fhir_server.search.parameter_types import PARAMETER_TYPES, ValueContext
from fhir_server.search.parameter_types.quantity import in_all_units

_PAIR: Final = 2


def condition(type: str, composite: Composite, text: str, context: ValueContext) -> Filter:
    """The condition of one value of an or-list, still escaped.  Raises ValueError that says what is wrong."""
    parts = split(text, "$")
    if len(parts) != len(composite.definition.components) or not all(parts):
        raise ValueError("it is written " + "$".join(["code", *["value"] * (len(composite.definition.components) - 1)]))
    if composite.of_row is not None and composite.entries_of and len(parts) > _PAIR:
        return _beside_code_of_row(type, composite, parts, context)
    if composite.of_row is not None and len(parts) > _PAIR:
        return _of_row(type, composite, parts, context)
    code = PARAMETER_TYPES["token"].parse_value(parts[0], context)
    value = composite.value.parse_value(parts[1], context)
    if not isinstance(code, TokenIs) or not code.code:
        raise ValueError("before $ it must have a code")
    values = in_all_units(value) if isinstance(value, QuantityIs) else (value,)
    found: list[Filter] = []
    if composite.of_row is not None:
        code_param, value_param = composite.of_row
        coded = _any_of([Has(param, code) for param in indexed_as(type, code_param).params])
        valued = _any_of([Has(param, one) for param in indexed_as(type, value_param).params for one in values])
        found.append(AllOf((coded, valued)))
    if composite.entries_of:
        name = pair_name(composite.entries_of, code.system, code.code)
        found.append(_any_of([Has(name, one) for one in values]))
    return _any_of(found)


def _beside_code_of_row(type: str, composite: Composite, parts: list[str], context: ValueContext) -> Filter:
    """The condition on a row that has this code, and on two numbers of one of its repeated elements."""
    reference, *numbers = [
        PARAMETER_TYPES[kind].parse_value(part, context) for (kind, _), part in zip(composite.definition.components, parts, strict=True)
    ]
    first, second = [number for number in numbers if isinstance(number, QuantityIs)]
    coded = [Has(one, reference) for name in composite.of_row or () for one in indexed_as(type, name).params]
    return AllOf((_any_of([*coded]), Has(composite.entries_of, NumbersAre(first, second))))


def _of_row(type: str, composite: Composite, parts: list[str], context: ValueContext) -> Filter:
    """The condition on a row that has one of each of the elements."""
    found: list[Filter] = []
    for param, (kind, _), part in zip(composite.of_row or (), composite.definition.components, parts, strict=True):
        predicate = PARAMETER_TYPES[kind].parse_value(part, context)
        found.append(_any_of([Has(one, predicate) for one in indexed_as(type, param).params]))
    return AllOf(tuple(found))


def _any_of(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))
