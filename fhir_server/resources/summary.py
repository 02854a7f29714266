"""The required members of a resource, and the members of its summary (http://hl7.org/fhir/R4/search.html#summary)."""

from __future__ import annotations

from functools import cache

from fhir_server.resources import definitions
from fhir_server.resources.definitions import Element


@cache
def required(type: str) -> frozenset[str]:
    """The top-level members that a valid resource of ``type`` must have."""
    return frozenset(name for element in _top_elements(type) if element.min > 0 for name in _member_names(element))


@cache
def summary(type: str) -> frozenset[str]:
    """The top-level members that R4 marks as part of the summary."""
    return frozenset(name for element in _top_elements(type) if element.summary for name in _member_names(element))


def _top_elements(type: str) -> tuple[Element, ...]:
    return tuple(element for element in definitions.elements(type) if element.path.count(".") == 1)


def _member_names(element: Element) -> tuple[str, ...]:
    name = element.path.partition(".")[2]
    if not name.endswith("[x]"):
        return (name,)
    return tuple(name[:-3] + choice.code[0].upper() + choice.code[1:] for choice in element.types)
