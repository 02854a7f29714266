"""The kinds of search parameter: how each reads an element's value and a client's text."""

from __future__ import annotations

from typing import Final

from fhir_server.search.parameter_types import date, number, quantity, reference, string, token, uri
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext

KINDS: Final[dict[str, ParameterType]] = {
    "date": date.KIND,
    "number": number.KIND,
    "quantity": quantity.KIND,
    "reference": reference.KIND,
    "string": string.KIND,
    "token": token.KIND,
    "uri": uri.KIND,
}

__all__ = ["KINDS", "Found", "ParameterType", "ValueContext"]
