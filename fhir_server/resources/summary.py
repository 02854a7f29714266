"""Which members of a resource its answers must keep, and which make its summary (http://hl7.org/fhir/R4/search.html#summary)."""

from __future__ import annotations

from functools import cache

from fhir_server.resources import definitions
from fhir_server.resources.definitions import Element


@cache
def required(type: str) -> frozenset[str]:
    """The top-level members without which a resource of ``type`` is not valid."""
    return frozenset(name for element in _top(type) if element.min > 0 for name in _names(element))


@cache
def summary(type: str) -> frozenset[str]:
    """The top-level members that R4 marks as part of the summary."""
    return frozenset(name for element in _top(type) if element.summary for name in _names(element))


def _top(type: str) -> tuple[Element, ...]:
    return tuple(element for element in definitions.elements(type) if element.path.count(".") == 1)


def _names(element: Element) -> tuple[str, ...]:
    name = element.path.partition(".")[2]
    if not name.endswith("[x]"):
        return (name,)
    return tuple(name[:-3] + choice.code[0].upper() + choice.code[1:] for choice in element.types)
