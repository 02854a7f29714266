"""Search parameters of type ``uri``: compared as written (http://hl7.org/fhir/R4/search.html#uri)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhir_server.search.escaping import unescape
from fhir_server.search.filters import RefersTo
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(uri,) of a string."""
    return (((value,), ()),) if type(value) is str else ()


def parse_value(text: str, context: ValueContext) -> RefersTo:
    """The URI as written."""
    return RefersTo(frozenset({unescape(text)}))


URI = ParameterType("reference", ("Uri", "Url", "Canonical", "Oid", "Uuid"), frozenset(), extract, parse_value)
