"""R4's search parameter types: how each reads the value of an element, and the text that a client sends."""

from __future__ import annotations

from typing import Final

from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext, no_more
from fhir_server.search.parameter_types.date import DATE
from fhir_server.search.parameter_types.number import NUMBER
from fhir_server.search.parameter_types.position import POSITION
from fhir_server.search.parameter_types.quantity import QUANTITY
from fhir_server.search.parameter_types.reference import REFERENCE
from fhir_server.search.parameter_types.string import STRING
from fhir_server.search.parameter_types.token import TOKEN
from fhir_server.search.parameter_types.uri import URI

PARAMETER_TYPES: Final[dict[str, ParameterType]] = {
    "date": DATE,
    "number": NUMBER,
    "quantity": QUANTITY,
    "reference": REFERENCE,
    "special": POSITION,  # R4 has one such parameter of a type: Location near
    "string": STRING,
    "token": TOKEN,
    "uri": URI,
}

__all__ = ["PARAMETER_TYPES", "Found", "ParameterType", "ValueContext", "no_more"]
