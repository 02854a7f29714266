"""Tokens: codes, codings, identifiers, flags (http://hl7.org/fhir/R4/search.html#token).

A ContactPoint's system is its ``system`` word, so that ``telecom=phone|555`` works beside ``telecom=555``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhir_server.search.escaping import split, unescape
from fhir_server.search.filters import TokenIs
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(system, code) of each coding; told apart by shape, as no two of the datatypes share one."""
    if type(value) is str:
        return ((("", value), ()),)
    if type(value) is bool:
        return ((("", "true" if value else "false"), ()),)
    if type(value) is not dict:
        return ()
    if "coding" in value:
        return [(pair, ("coding", i)) for i, coding in enumerate(value["coding"]) if (pair := _pair(coding, "code"))]
    pair = _pair(value, "code" if "code" in value else "value")
    return ((pair, ()),) if pair else ()


def _pair(value: dict[str, Any], name: str) -> tuple[str, str] | None:
    system, code = value.get("system", ""), value.get(name, "")
    return (system, code) if code or (system and name == "code") else None


def test(text: str, asked: ValueContext) -> TokenIs:
    """``code``, ``system|code``, ``|code`` (of no system) or ``system|`` (any code of it)."""
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) == 1:
        return TokenIs(None, parts[0])
    if len(parts) > 2 or parts == ["", ""]:
        raise ValueError("a token is written code, system|code, |code or system|")
    system, code = parts
    return TokenIs(system, code or None)


KIND = ParameterType("token", ("CodeableConcept", "Coding", "Identifier", "Boolean", "Code", "Uri"), frozenset({"not"}), extract, test)
