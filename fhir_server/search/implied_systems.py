"""The code systems that a ``code`` or ``boolean`` element implies (http://hl7.org/fhir/R4/search.html#token)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from fhir_server.resources import definitions
from fhir_server.resources.definitions import Element
from fhir_server.search.expression import Branch, Member, parse

SPECIAL_VALUES = "http://hl7.org/fhir/special-values"


@cache
def implied_systems(type: str, expression: str) -> frozenset[str]:
    """The systems that a client may give for values of this token expression, which have no system of their own.

    Empty unless every branch ends in a ``code`` with a required binding, or in a ``boolean``.
    """
    systems = [_systems(element_of(type, branch)) for branch in parse(expression)]
    return frozenset().union(*systems) if all(systems) else frozenset()


def _systems(element: Element | None) -> frozenset[str]:
    types = {type.code for type in element.types} if element else set()
    if element and types == {"code"}:
        return frozenset(element.codes or ())
    return frozenset({SPECIAL_VALUES}) if types == {"boolean"} else frozenset()


def element_of(type: str, branch: Branch) -> Element | None:
    """The element at which a branch of an expression ends; None if the branch has other steps than members."""
    holder, path, element = type, type, None
    for step in branch:
        if not isinstance(step, Member) or step.cast:
            return None
        element = _elements(holder).get(f"{path}.{step.name}")
        if element is None:
            return None
        path = element.like or element.path
        if len(element.types) == 1 and element.types[0].code in definitions.datatypes():
            holder = path = element.types[0].code
    return element


@cache
def _elements(name: str) -> Mapping[str, Element]:
    return {element.path: element for element in definitions.elements(name)}
