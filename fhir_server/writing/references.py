"""Finds and rewrites the literal references in the JSON text of a resource.

:mod:`fhir_server.resources.references` has the grammar of a reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

_REFERENCE: Final = re.compile(rb'"reference"\s*:\s*"([^"\\]*)"')
_REFERENCE_PARTS: Final = re.compile(rb'("reference"\s*:\s*")([^"\\]*)"')
# Expression, DetectedIssue and Immunization.education have an element ``reference`` of type uri: not a literal reference.
_MEMBERS: Final = frozenset({"reference", "type", "identifier", "display", "id", "extension", "_reference", "_type", "_display"})


class FoundReference(NamedTuple):
    """A literal reference in a parsed resource: its text and, as FHIRPath below the resource, its place (``subject.reference``)."""

    text: str
    place: str


def references(text: bytes) -> frozenset[str]:
    """Every literal reference in a resource's JSON text, as written."""
    return frozenset([match.decode() for match in set(_REFERENCE.findall(text))])


def has_readable_references(text: bytes, value: Any) -> bool:
    """Whether :func:`references` finds every reference of this JSON text, whose value is ``value``.

    It does not if the references are escaped: JSON allows escapes for any character, and some writers escape slashes.
    """
    return b"\\" not in text or not (b"\\/" in text or b"\\u" in text) or references(text).issuperset(_texts(value))


def replace_references(text: bytes, replacement: Callable[[str], str | None]) -> bytes:
    """The JSON text with each literal reference replaced; None keeps one as it is."""

    def replace(match: re.Match[bytes]) -> bytes:
        new = replacement(match[2].decode())
        return match[0] if new is None else match[1] + json.dumps(new, ensure_ascii=False).encode()[1:]

    return _REFERENCE_PARTS.sub(replace, text)


def found_references(value: Any, place: str = "") -> Iterator[FoundReference]:
    """The literal references in a parsed resource, with their places."""
    if isinstance(value, dict):
        text = value.get("reference")
        if isinstance(text, str) and value.keys() <= _MEMBERS:
            yield FoundReference(text, f"{place}.reference")
        for name, inner in value.items():
            if isinstance(inner, dict | list):
                yield from found_references(inner, f"{place}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from found_references(item, f"{place}[{index}]")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _texts(item)
