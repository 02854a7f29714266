"""Finds and rewrites the literal references in the JSON text of a resource.

:mod:`fhir_server.resources.references` has the grammar of a reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_REFERENCE = re.compile(rb'"reference"\s*:\s*"([^"\\]*)"')


def references(text: bytes) -> frozenset[str]:
    """Every literal reference in a resource's JSON text, as written."""
    return frozenset([match.decode() for match in set(_REFERENCE.findall(text))])


def has_readable_references(text: bytes, value: Any) -> bool:
    """Whether :func:`references` finds every reference of this JSON text, whose value is ``value``.

    It does not if the references are escaped: JSON allows escapes for any character, and some writers escape slashes.
    """
    return not (b"\\/" in text or b"\\u" in text) or references(text).issuperset(_references_in(value))


def without_base_in_text(text: bytes, base: str) -> bytes:
    """The JSON text with the absolute references below ``base``, this server's FHIR base URL, made relative."""
    own = f'"{base}/'.encode()
    return _REFERENCE.sub(lambda match: match.group(0).replace(own, b'"'), text) if base and own in text else text


def _references_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _references_in(item)
