"""Splits search values at ``,``, ``|`` and ``$`` unless they are escaped (http://hl7.org/fhir/R4/search.html#escaping)."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)


def split(text: str, separator: str) -> list[str]:
    """The pieces between unescaped separators, with their escapes."""
    if "\\" not in text:
        return text.split(separator)
    pieces, piece, escaped = [], "", False
    for char in text:
        if char == separator and not escaped:
            pieces.append(piece)
            piece = ""
            continue
        escaped = char == "\\" and not escaped
        piece += char
    return [*pieces, piece]


def unescape(text: str) -> str:
    """The text without escapes.  Raises ValueError for a backslash that escapes nothing."""
    return _ESCAPE.sub(_unescape_match, text) if "\\" in text else text


def _unescape_match(match: re.Match[str]) -> str:
    if match[1] and match[1] in ",|$\\":
        return match[1]
    raise ValueError("a backslash must be followed by one of , | $ \\")
