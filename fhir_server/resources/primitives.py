"""Checks of R4's primitive datatypes: one predicate for each (http://hl7.org/fhir/R4/datatypes.html#primitive).

Numbers are ``int`` or ``Decimal``, as :mod:`fhir_server.jsontext` parses them; ``bool`` is never a number.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from fhir_server.resources.references import ID_PATTERN
from fhir_server.resources.xhtml import narrative

Predicate = Callable[[Any], bool]

TEXT_LIMIT: Final = 1024 * 1024  # characters of a string or markdown, R4 2.24.0.1

_YEAR = r"(?:[0-9](?:[0-9](?:[0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)"
_DAY = rf"{_YEAR}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_PARTIAL = rf"{_YEAR}(?:-(?:0[1-9]|1[0-2]))?"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"

_control = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]").search
_base64 = re.compile(r"[0-9A-Za-z+/\s]*(?:=\s*){0,2}").fullmatch


def _text(value: Any) -> bool:
    if type(value) is not str or not value:
        return False
    return (value.isprintable() or _control(value) is None) and len(value) <= TEXT_LIMIT


def _matching(pattern: str) -> Predicate:
    fullmatch = re.compile(pattern).fullmatch
    return lambda value: type(value) is str and fullmatch(value) is not None


def _date_matching(pattern: str) -> Predicate:
    """A predicate for texts of this pattern whose day exists in its month."""
    fullmatch = re.compile(pattern).fullmatch

    def valid(value: Any) -> bool:
        if type(value) is not str or fullmatch(value) is None:
            return False
        return value[8:10] <= "28" or int(value[8:10]) <= monthrange(int(value[:4]), int(value[5:7]))[1]

    return valid


def _integer_between(low: int, high: int = 2**31 - 1) -> Predicate:
    return lambda value: type(value) is int and low <= value <= high


def _base64_binary(value: Any) -> bool:
    if type(value) is not str or not value or _base64(value) is None:
        return False
    return sum(map(len, value.split())) % 4 == 0


# R4 2.24.0.1: no control characters in strings, and a code is a string; RFC 3986 has none in URIs
_SOLID = r"[^\s\x00-\x1f]"
_uri = _matching(rf"{_SOLID}+")

VALID: Final[Mapping[str, Predicate]] = {
    "base64Binary": _base64_binary,
    "boolean": lambda value: type(value) is bool,
    "canonical": _uri,
    "code": _matching(rf"{_SOLID}+(?:\s{_SOLID}+)*"),
    "date": _date_matching(rf"{_DAY}|{_PARTIAL}"),
    "dateTime": _date_matching(rf"{_DAY}(?:T{_TIME}{_ZONE})?|{_PARTIAL}"),
    "decimal": lambda value: type(value) is Decimal or type(value) is int,
    "id": _matching(ID_PATTERN),
    "instant": _date_matching(rf"{_DAY}T{_TIME}{_ZONE}"),
    "integer": _integer_between(-(2**31)),
    "markdown": _text,
    "oid": _matching(r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+"),
    "positiveInt": _integer_between(1),
    "string": _text,
    "time": _matching(_TIME),
    "unsignedInt": _integer_between(0),
    "uri": _uri,
    "url": _uri,
    "uuid": _matching(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    "xhtml": narrative,
}

NUMBERS: Final = frozenset({"decimal", "integer", "positiveInt", "unsignedInt"})


def json_kind(datatype: str) -> str:
    """The JSON type of a primitive, for messages: "a number", "true or false" or "a string"."""
    if datatype in NUMBERS:
        return "a number"
    return "true or false" if datatype == "boolean" else "a string"


def is_json_kind(datatype: str, value: Any) -> bool:
    """Whether the value has the JSON type of this primitive."""
    if datatype in NUMBERS:
        return type(value) in (int, Decimal)
    return type(value) is (bool if datatype == "boolean" else str)
