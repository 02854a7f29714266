"""Extracts the index entries of a resource by R4's search parameters, which are compiled once for each type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, Final

from fhir_server.jsontext import Path
from fhir_server.resources import definitions
from fhir_server.resources.definitions import SearchParameter
from fhir_server.search import composites, words
from fhir_server.search.element_paths import Out, Walk, compile_walk
from fhir_server.search.expression import TrueUnlessFalse, parse
from fhir_server.search.parameter_aliases import IndexedAs, index_forms
from fhir_server.search.parameter_types import PARAMETER_TYPES, ParameterType, no_more
from fhir_server.search.rows import Entry

# R4 parameters that this module does not index: composites (see ``composites``), and two of Bundle whose values are resources.
UNSUPPORTED_KINDS: Final = frozenset({"composite"})
UNSUPPORTED: Final = frozenset({("Bundle", "composition"), ("Bundle", "message")})

# Stored with the row (_id), or added when it is written (_lastUpdated).
_NOT_EXTRACTED: Final = frozenset({"_id", "_lastUpdated"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """A supported search parameter of a resource type.

    ``definition``  HL7's definition
    ``kind``        its search parameter type
    ``indexed_as``  the parameters whose index entries answer it
    ``targets``     its target types
    ``flag``        whether its expression is true or false for every row; only "true" is indexed
    """

    type: str
    definition: SearchParameter
    kind: ParameterType
    indexed_as: IndexedAs
    targets: tuple[str, ...]
    flag: bool


@cache
def parameters(type: str) -> Mapping[str, Parameter]:
    """Code -> supported parameter of this type.  Raises KeyError for a type that R4 does not have."""
    supported_parameters = tuple(p for p in definitions.search_parameters(type) if _is_supported(type, p))
    forms = index_forms(supported_parameters)
    return MappingProxyType({p.code: _parameter(type, p, forms[p.code]) for p in supported_parameters})


def supported(type: str) -> tuple[SearchParameter, ...]:
    """HL7's definitions of the supported parameters of this type, also composites and searches for words, for the CapabilityStatement."""
    pairs = (composite.definition for composite in composites.composites(type).values())
    texts = (SearchParameter(code, "string", "") for code in words.parameters(type))
    return (*(parameter.definition for parameter in parameters(type).values()), *pairs, *texts)


def indexed_as(type: str, param: str) -> IndexedAs:
    """The parameters whose index entries answer ``param``; no others have entries."""
    return parameters(type)[param].indexed_as


def entries(type: str, resource: Mapping[str, Any], base: str) -> tuple[Entry, ...]:
    """The index entries of a valid resource (as :func:`fhir_server.jsontext.parse` returns it), each with its element's path.

    Entries are distinct; a value that occurs twice has an entry for each path. ``_id`` and ``_lastUpdated`` have none, and the caller
    sets the visibility classes. ``base`` is the server's FHIR base URL, by which absolute references to its resources are recognized.
    """
    walks = _walks_by_member(type, base)
    found: Out = []
    for name, value in resource.items():
        for walk in walks.get(name, ()):
            walk(value, (), found)
    found += composites.entries(type, resource, base)
    return tuple(found)


def entries_with_words(type: str, resource: Mapping[str, Any], base: str) -> tuple[Entry, ...]:
    """As :func:`entries`, with the words of a resource of which nothing is hidden."""
    return (*entries(type, resource, base), *words.entries(type, resource))


def targets(type: str, param: str, resource: Mapping[str, Any], base: str) -> tuple[str, ...]:
    """The targets of the resource by reference parameter ``param``, in order; pass only what the caller may see of the resource."""
    found: Out = []
    for name, walk in _walks(type, param, base):
        if name in resource:
            walk(resource[name], (), found)
    return tuple(dict.fromkeys(entry.value[0] for entry in found if entry.param == param))


def reference_texts(type: str, param: str, resource: Mapping[str, Any], base: str) -> tuple[str, ...]:
    """As :func:`targets`, with the references as written: these may name a version."""
    found: Out = []
    for name, walk in _walks(type, param, base):
        if name in resource:
            walk(resource[name], (), found)
    return tuple(dict.fromkeys(_value_at(resource, entry.path) for entry in found if entry.param == param))


def _value_at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _is_supported(type: str, parameter: SearchParameter) -> bool:
    return parameter.kind not in UNSUPPORTED_KINDS and (type, parameter.code) not in UNSUPPORTED


def _parameter(type: str, definition: SearchParameter, form: IndexedAs) -> Parameter:
    narrowed = (form.limit,) if form.limit else definition.targets
    flag = any(isinstance(step, TrueUnlessFalse) for branch in parse(definition.expression) for step in branch)
    return Parameter(type, definition, PARAMETER_TYPES[definition.kind], form, narrowed, flag)


@lru_cache(maxsize=512)
def _walks_by_member(type: str, base: str) -> Mapping[str, tuple[Walk, ...]]:
    walks: dict[str, tuple[Walk, ...]] = {}
    for code, parameter in parameters(type).items():
        if parameter.indexed_as == IndexedAs((code,)) and code not in _NOT_EXTRACTED:
            for name, walk in _walks(type, code, base):
                walks[name] = (*walks.get(name, ()), walk)
        elif parameter.indexed_as.limit is not None:
            for name, walk in _walks_of_limited(type, code):
                walks[name] = (*walks.get(name, ()), walk)
    return walks


@lru_cache(maxsize=4096)
def _walks(type: str, code: str, base: str) -> tuple[tuple[str, Walk], ...]:
    parameter = parameters(type)[code]
    sink = _sink(code, parameter.kind, base)
    branches = parse(parameter.definition.expression)
    return tuple(start for branch in branches for start in compile_walk(branch, parameter.kind.suffixes, sink))


def _walks_of_limited(type: str, code: str) -> list[tuple[str, Walk]]:
    """Walks to what answers the modifiers of a reference parameter limited to one type, whose other entries are those of another parameter.

    An identifier alone does not say to what type it belongs; the reference around it may.
    """
    parameter = parameters(type)[code]

    def sink(value: Any, path: Path, out: Out) -> None:
        for modifier, kind_of_entry, found, below in parameter.kind.extract_more(value):
            out.append(Entry(f"{code}:{modifier}", kind_of_entry, found, path + below))

    branches = parse(parameter.definition.expression)
    return [start for branch in branches for start in compile_walk(branch, parameter.kind.suffixes, sink)]


def _sink(code: str, kind: ParameterType, base: str) -> Walk:
    extract, name, extract_more = kind.extract, kind.entry, kind.extract_more

    def sink(value: Any, path: Path, out: Out) -> None:
        for found, below in extract(value, base):
            out.append(Entry(code, name, found, path + below))

    def sink_with_more(value: Any, path: Path, out: Out) -> None:
        sink(value, path, out)
        for modifier, kind_of_entry, found, below in extract_more(value):
            out.append(Entry(f"{code}:{modifier}", kind_of_entry, found, path + below))

    return sink if extract_more is no_more else sink_with_more
