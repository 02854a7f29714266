"""Search parameters of type ``token``: codes, codings, identifiers, flags (http://hl7.org/fhir/R4/search.html#token).

The system of a ContactPoint is its ``system`` code, so ``telecom=phone|555`` works as well as ``telecom=555``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from fhir_server.jsontext import Path
from fhir_server.search.escaping import split, unescape
from fhir_server.search.filters import TextIs, TokenIs
from fhir_server.search.parameter_types import string
from fhir_server.search.parameter_types._parameter_type import Found, More, ParameterType, ValueContext

HAS_TEXT: Final = frozenset({"CodeableConcept", "Coding", "Identifier"})
"""The datatypes in which ``:text`` finds a text."""


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(system, code) of each coding, of an identifier, contact point, code or boolean, recognized by its JSON shape."""
    if type(value) is str:
        return ((("", value), ()),)
    if type(value) is bool:
        return ((("", "true" if value else "false"), ()),)
    if type(value) is not dict:
        return ()
    if "coding" in value:
        return [(token, ("coding", i)) for i, coding in enumerate(value["coding"]) if (token := _token(coding, "code"))]
    token = _token(value, "code" if "code" in value else "value")
    return ((token, ()),) if token else ()


def _token(value: dict[str, Any], name: str) -> tuple[str, str] | None:
    system, code = value.get("system", ""), value.get(name, "")
    return (system, code) if code or (system and name == "code") else None


def extract_more(value: Any) -> Iterable[More]:
    """For ``of-type``: (``system|code`` of a type, value) of an identifier.  For ``text``: see :func:`_texts`."""
    if type(value) is not dict:
        return ()
    more = [("text", "string", (folded, ""), path) for text, path in _texts(value) if (folded := string.fold(text))]
    if type(value.get("type")) is dict and type(value.get("value")) is str:
        codings = value["type"].get("coding", ())
        more += [("of-type", "token", (f"{one.get('system', '')}|{one['code']}", value["value"]), ()) for one in codings if one.get("code")]
    return more


def _texts(value: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """The texts of a CodeableConcept and of its codings, the display of a Coding, and the text of an Identifier's type."""
    if type(value.get("text")) is str:
        yield value["text"], ("text",)
    if type(value.get("display")) is str:
        yield value["display"], ("display",)
    for number, coding in enumerate(value.get("coding", ())):
        if type(coding.get("display")) is str:
            yield coding["display"], ("coding", number, "display")
    if type(value.get("type")) is dict and type(value["type"].get("text")) is str:
        yield value["type"]["text"], ("type", "text")


def parse_value(text: str, context: ValueContext) -> TokenIs | TextIs:
    """A token.

    By modifier ``of-type``: ``system|code|value``, an identifier of this type; by ``text``: a text, as a string.
    """
    if context.modifier == "text":
        return string.parse_value(text, ValueContext())
    if context.modifier == "of-type":
        parts = [unescape(part) for part in split(text, "|")]
        if len(parts) != 3 or not all(parts):
            raise ValueError("with :of-type it is written system|code|value")
        return TokenIs(f"{parts[0]}|{parts[1]}", parts[2])
    return parse_token(text)


def parse_token(text: str) -> TokenIs:
    """``code``, ``system|code``, ``|code`` (without a system) or ``system|`` (any code of the system).  Raises ValueError."""
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) == 1:
        return TokenIs(None, parts[0])
    if len(parts) > 2 or parts == ["", ""]:
        raise ValueError("a token is written code, system|code, |code or system|")
    system, code = parts
    return TokenIs(system, code or None)


TOKEN = ParameterType(
    "token",
    ("CodeableConcept", "Coding", "Identifier", "Boolean", "Code", "Uri"),
    frozenset({"not", "of-type", "text", "in", "not-in", "above", "below"}),
    extract,
    parse_value,
    extract_more,
)
