"""Compiles ``code$value`` of a composite search parameter to the condition language (:mod:`fhir_server.search.composites`)."""

from __future__ import annotations

from fhir_server.search.composites import Composite, pair_name
from fhir_server.search.escaping import split
from fhir_server.search.filters import AllOf, AnyOf, Filter, Has, QuantityIs, TokenIs
from fhir_server.search.index import indexed_as
from fhir_server.search.parameter_types import PARAMETER_TYPES, ValueContext
from fhir_server.search.parameter_types.quantity import in_all_units


def condition(type: str, composite: Composite, text: str, context: ValueContext) -> Filter:
    """The condition of one value of an or-list, still escaped.  Raises ValueError that says what is wrong."""
    parts = split(text, "$")
    if len(parts) != 2 or not all(parts):
        raise ValueError("it is written code$value")
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


def _any_of(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))
