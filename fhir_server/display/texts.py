"""Reads texts out of a resource: single lines, without characters that change how a page is read."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

MAX_TEXT: Final = 300  # characters of one text
MAX_VALUES: Final = 5  # values of one path
_JOINERS: Final = "\u200c\u200d"  # Persian, Hindi and others need them
# Marks, embeddings, overrides and isolates of direction would turn the digits and words around them; the page isolates each text instead.
_DROPPED: Final = ("Cf", "Cs")
_SPACES: Final = ("Cc", "Zl", "Zp")


def plain(value: object) -> str:
    """Return a text as one line without control and direction characters, cut to :data:`MAX_TEXT`; "" for anything else."""
    if not isinstance(value, str):
        return ""
    kept = value if value.isascii() and value.isprintable() else "".join(map(_kept, value))  # such a text has nothing to drop
    line = " ".join(kept.split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"


def text_of(value: object) -> str:
    """Return the text of a string, number, CodeableConcept, Coding or Reference; "" for anything else."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, bool):
        return ""
    if isinstance(value, (int, Decimal)):
        return number(value)
    if not isinstance(value, dict):
        return ""
    codings = objects(value.get("coding"))
    displays, codes = [each.get("display") for each in codings], [each.get("code") for each in codings]
    return next(filter(None, map(plain, [value.get("text"), *displays, value.get("display"), *codes, value.get("code")])), "")


def texts_at(value: object, path: str) -> Iterator[str]:
    """Yield the texts at a path such as ``reaction.manifestation``, through arrays."""
    for found in values_at(value, path):
        if text := text_of(found):
            yield text


def values_at(value: object, path: str) -> Iterator[Any]:
    """Yield the values at a path, through arrays. FHIR has no arrays in arrays, so those have no values."""
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, list):
                yield from values_at(item, path)
    elif not path:
        yield value
    elif isinstance(value, dict):
        name, _, rest = path.partition(".")
        yield from values_at(value.get(name), rest)


def first_text(resource: object, *paths: str) -> str:
    """Return the texts at the first path that has any, joined; "" if none has."""
    for path in paths:
        if texts := list(dict.fromkeys(texts_at(resource, path))):
            more = " and more" if len(texts) > MAX_VALUES else ""
            return ", ".join(texts[:MAX_VALUES]) + more
    return ""


def first_code(resource: object, *paths: str) -> str:
    """Return the code at the first path that has one: a plain string (``status``), or the code of a CodeableConcept's coding."""
    for path in paths:
        for found in values_at(resource, path):
            if isinstance(found, str) and (code := plain(found)):
                return code.lower()
            codings = objects(found.get("coding")) if isinstance(found, dict) else []
            candidates = [found, *(coding.get("code") for coding in codings)]
            if code := next(filter(None, map(plain, candidates)), ""):
                return code.lower()
    return ""


def number(value: object) -> str:
    """Return a JSON number with its digits; "" for anything else."""
    return str(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else ""


def objects(value: object) -> list[dict[str, Any]]:
    """Return the objects of a JSON array, or the object itself; nothing for anything else."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def _kept(character: str) -> str:
    category = unicodedata.category(character)
    if category in _SPACES:
        return " "
    return "" if category in _DROPPED and character not in _JOINERS else character
