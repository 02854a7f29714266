"""Values of primitives, and places, while a resource is read from XML."""

from __future__ import annotations

import re
from typing import Final, NoReturn

import msgspec

from fhir_server.errors import Issue, Problem
from fhir_server.resources.primitives import NUMBERS

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)").fullmatch
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch
_encode = msgspec.json.Encoder().encode
_MAX_QUOTED: Final = 40


def json_value(datatype: str, text: str) -> bytes | None:
    """The JSON text of a primitive's ``value`` attribute, digits as written; None if it is none of this datatype."""
    if datatype == "boolean":
        return text.encode() if text in ("true", "false") else None
    if datatype in NUMBERS:
        matches = _DECIMAL if datatype == "decimal" else _INTEGER
        return text.encode() if matches(text) else None
    return _encode(text)


def string(text: str) -> bytes:
    """A JSON string."""
    return _encode(text)


def quoted(text: str) -> str:
    """A name or text that was sent, short enough for a message."""
    return repr(text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "…")


def refuse(text: str, place: str = "", code: str = "structure") -> NoReturn:
    """Raise Problem ``invalid`` for what is at a place (a FHIRPath expression)."""
    where = f" (at {place})" if place else ""
    raise Problem("invalid", text + where, (Issue(code, text + where, (place,) if place else ()),))
