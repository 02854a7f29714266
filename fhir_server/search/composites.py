"""Composite search parameters: a code and a value of the same element (http://hl7.org/fhir/R4/search.html#combining).

A row has one ``Observation.code`` and one value: the conditions on both together are the condition on the pair. Of elements that a row may
have several of (a component), the index has an entry for each pair: that of the value, under a name that holds the code, such as
``component-code-value-quantity$http://loinc.org|8480-6``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from fhir_server.jsontext import Path
from fhir_server.resources import definitions
from fhir_server.resources.definitions import SearchParameter
from fhir_server.search import coordinates
from fhir_server.search.element_paths import Out, Walk, compile_walk
from fhir_server.search.expression import Branch, parse
from fhir_server.search.parameter_types import PARAMETER_TYPES, ParameterType
from fhir_server.search.rows import Entry

ANY_SYSTEM: Final = "*"
_VALUES: Final = frozenset({"token", "quantity", "reference"})
# Parameters of a row's one code and values of which it has one each, whose conditions together are those of a composite.
_OF_ROW: Final = {
    ("Observation", "code-value-concept"): ("code", "value-concept"),
    ("Observation", "code-value-date"): ("code", "value-date"),
    ("Observation", "code-value-quantity"): ("code", "value-quantity"),
    ("Observation", "code-value-string"): ("code", "value-string"),
    ("Observation", "combo-code-value-concept"): ("code", "value-concept"),
    ("Observation", "combo-code-value-quantity"): ("code", "value-quantity"),
    ("MolecularSequence", "chromosome-window-coordinate"): ("chromosome", "window-start", "window-end"),
    ("MolecularSequence", "referenceseqid-window-coordinate"): ("referenceseqid", "window-start", "window-end"),
}
# Parameters that are answered by the entries of another one.
_ENTRIES_OF: Final = {
    "combo-code-value-concept": "component-code-value-concept",
    "combo-code-value-quantity": "component-code-value-quantity",
}
# HL7's definition of this parameter names the types of its parts in the wrong order.
_COMPONENTS: Final = {("DocumentReference", "relationship"): (("token", "code"), ("reference", "target"))}


@dataclass(frozen=True, slots=True)
class Composite:
    """A supported composite parameter.

    ``of_row``      the parameters of the row's own code and values, or None
    ``entries_of``  the name under which pairs of repeated elements are indexed, or "": pairs of a code and a value, or, beside a code of
                    the row, of two numbers
    ``value``       the type of the second part
    """

    definition: SearchParameter
    of_row: tuple[str, ...] | None
    entries_of: str
    value: ParameterType


@cache
def composites(type: str) -> Mapping[str, Composite]:
    """Code -> supported composite parameter of this type."""
    found = (_composite(type, p) for p in definitions.search_parameters(type) if p.kind == "composite")
    return MappingProxyType({composite.definition.code: composite for composite in found if composite is not None})


def pair_name(param: str, system: str | None, code: str) -> str:
    """The name under which pairs with this code are indexed; ``system`` None: of any system."""
    return f"{param}${ANY_SYSTEM if system is None else system}|{code}"


def entries(type: str, resource: Mapping[str, Any], base: str) -> Iterator[Entry]:
    """The index entries for pairs of repeated elements, each with the path of the element that holds both."""
    for code, name, walk in _walks(type):
        nodes: Out = []
        if name in resource:
            walk(resource[name], (), nodes)
        for node, path in nodes:
            yield from dict.fromkeys(_pairs(composites(type)[code], node, path, base))
    yield from coordinates.entries(type, resource)


def _pairs(composite: Composite, node: Mapping[str, Any], path: Path, base: str) -> Iterator[Entry]:
    tokens, values = (_found(expression, kind, node, base) for kind, expression in composite.definition.components)
    for system, code in dict.fromkeys(tokens):
        for name in (pair_name(composite.entries_of, None, code), pair_name(composite.entries_of, system, code)) if code else ():
            yield from (Entry(name, composite.value.entry, value, path) for value in values)


def _found(expression: str, kind: str, node: Mapping[str, Any], base: str) -> list[Any]:
    type = PARAMETER_TYPES[kind]
    values: Out = []

    def sink(value: Any, path: Path, out: Out) -> None:
        out.extend(found for found, _ in type.extract(value, base))

    for branch in parse(expression):
        for name, walk in compile_walk(branch, type.suffixes, sink):
            if name in node:
                walk(node[name], (), values)
    return values


@cache
def _walks(type: str) -> tuple[tuple[str, str, Walk], ...]:
    """(code, top-level member, walk to the nodes) of the parameters that have entries."""

    def sink(value: Any, path: Path, out: Out) -> None:
        out.append((value, path))

    own = [composite for composite in composites(type).values() if composite.entries_of == composite.definition.code]
    return tuple(
        (composite.definition.code, name, walk)
        for composite in own
        for branch in _repeated(composite.definition)
        for name, walk in compile_walk(branch, (), sink)
    )


def _repeated(definition: SearchParameter) -> list[Branch]:
    return [branch for branch in parse(definition.expression) if branch]


def _composite(type: str, definition: SearchParameter) -> Composite | None:
    definition = replace(definition, components=_COMPONENTS.get((type, definition.code), definition.components))
    kinds = tuple(kind for kind, _ in definition.components)
    if reference := coordinates.REFERENCES.get((type, definition.code)):
        return Composite(definition, (reference,), coordinates.NAME, PARAMETER_TYPES[kinds[1]])
    of_row, repeated = _OF_ROW.get((type, definition.code)), _repeated(definition)
    if of_row is not None and len(of_row) == len(kinds) > 2:
        return Composite(definition, of_row, "", PARAMETER_TYPES[kinds[1]])
    if len(kinds) != 2 or kinds[0] != "token" or (len(repeated) < len(parse(definition.expression)) and of_row is None):
        return None
    if repeated and kinds[1] not in _VALUES:
        return None
    entries_of = _ENTRIES_OF.get(definition.code, definition.code) if repeated else ""
    return Composite(definition, of_row, entries_of, PARAMETER_TYPES[kinds[1]])
