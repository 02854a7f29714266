"""Extracts the index entries of a resource by R4's search parameters, which are compiled once for each type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, Final

from fhir_server.errors import Problem
from fhir_server.jsontext import Path
from fhir_server.resources import definitions
from fhir_server.resources.definitions import SearchParameter
from fhir_server.search import composites, custom_parameters, words
from fhir_server.search.custom_parameters import CustomParameter, CustomParameters
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
    ``name``        under which its own index entries are found
    ``datatypes``   those of the elements that it selects, if it is a custom parameter
    """

    type: str
    definition: SearchParameter
    kind: ParameterType
    indexed_as: IndexedAs
    targets: tuple[str, ...]
    flag: bool
    name: str
    datatypes: frozenset[str] = frozenset()


def parameters(type: str) -> Mapping[str, Parameter]:
    """Code -> parameter of this type that may be used here: R4's and custom ones.  Raises KeyError for a type that R4 does not have."""
    custom = custom_parameters.current()
    return _with_custom(type, custom) if custom.ready else r4_parameters(type)


def parameter(type: str, code: str) -> Parameter | None:
    """The parameter with this code, or None.  Raises Problem ``invalid`` for one whose index is not complete yet."""
    if custom_parameters.current().is_pending(type, code):
        text = f"The search parameter {code!r} of {type} is not ready: stored resources are being indexed. Try again later."
        raise Problem("invalid", text)
    return parameters(type).get(code)


@lru_cache(maxsize=1024)
def _with_custom(type: str, custom: CustomParameters) -> Mapping[str, Parameter]:
    added = {one.code: _custom(one) for one in custom.of(type) if one in custom.ready}
    return MappingProxyType({**r4_parameters(type), **added})


@lru_cache(maxsize=1024)
def _custom(one: CustomParameter) -> Parameter:
    definition = SearchParameter(one.code, one.kind, one.expression, one.targets)
    kind, form = PARAMETER_TYPES[one.kind], IndexedAs((one.name,))
    return Parameter(one.type, definition, kind, form, one.targets, flag=False, name=one.name, datatypes=frozenset(one.datatypes))


@cache
def r4_parameters(type: str) -> Mapping[str, Parameter]:
    """Code -> supported parameter of R4.  Raises KeyError for a type that R4 does not have."""
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


def is_of_uri(type: str, name: str) -> bool:
    """Whether the index entries of this name are those of a uri parameter; those of a reference look the same."""
    known = r4_parameters(type).get(name)
    return (known.definition.kind if known is not None else custom_parameters.kind_of_entries(name)) == "uri"


def entries(type: str, resource: Mapping[str, Any], base: str, custom: tuple[CustomParameter, ...] = ()) -> tuple[Entry, ...]:
    """The index entries of a valid resource (as :func:`fhir_server.jsontext.parse` returns it), each with its element's path.

    Entries are distinct; a value that occurs twice has an entry for each path. ``_id`` and ``_lastUpdated`` have none, and the caller
    sets the visibility classes. ``base`` is the server's FHIR base URL, by which absolute references to its resources are recognized.
    """
    walks = _walks_by_member(type, base)
    found: Out = []
    for name, value in resource.items():
        for walk in walks.get(name, ()):
            walk(value, (), found)
    for one in custom:
        for name, walk in _walks(_custom(one), base):
            if name in resource:
                walk(resource[name], (), found)
    found += composites.entries(type, resource, base)
    return tuple(found)


def entries_with_words(type: str, resource: Mapping[str, Any], base: str) -> tuple[Entry, ...]:
    """As :func:`entries`, with the words of a resource of which nothing is hidden."""
    return (*entries(type, resource, base), *words.entries(type, resource))


def targets(type: str, param: str, resource: Mapping[str, Any], base: str) -> tuple[str, ...]:
    """The targets of the resource by reference parameter ``param``, in order; pass only what the caller may see of the resource."""
    return tuple(dict.fromkeys(str(entry.value[0]) for entry in _entries_of(type, param, resource, base)))


def reference_texts(type: str, param: str, resource: Mapping[str, Any], base: str) -> tuple[str, ...]:
    """As :func:`targets`, with the references as written: these may name a version."""
    return tuple(dict.fromkeys(_value_at(resource, entry.path) for entry in _entries_of(type, param, resource, base)))


def members_read(type: str, param: str, base: str) -> frozenset[str]:
    """The members of a resource from which :func:`targets` and :func:`reference_texts` read; they need no others."""
    return frozenset(name for name, _ in _walks(parameters(type)[param], base))


def _entries_of(type: str, param: str, resource: Mapping[str, Any], base: str) -> list[Entry]:
    known = parameters(type)[param]
    found: Out = []
    for name, walk in _walks(known, base):
        if name in resource:
            walk(resource[name], (), found)
    return [entry for entry in found if entry.param == known.name]


def _value_at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _is_supported(type: str, parameter: SearchParameter) -> bool:
    return parameter.kind not in UNSUPPORTED_KINDS and (type, parameter.code) not in UNSUPPORTED


def _parameter(type: str, definition: SearchParameter, form: IndexedAs) -> Parameter:
    narrowed = (form.limit,) if form.limit else definition.targets
    flag = any(isinstance(step, TrueUnlessFalse) for branch in parse(definition.expression) for step in branch)
    return Parameter(type, definition, PARAMETER_TYPES[definition.kind], form, narrowed, flag, definition.code)


@lru_cache(maxsize=512)
def _walks_by_member(type: str, base: str) -> Mapping[str, tuple[Walk, ...]]:
    walks: dict[str, tuple[Walk, ...]] = {}
    for code, parameter in r4_parameters(type).items():
        if parameter.indexed_as == IndexedAs((code,)) and code not in _NOT_EXTRACTED:
            for name, walk in _walks(parameter, base):
                walks[name] = (*walks.get(name, ()), walk)
        elif parameter.indexed_as.limit is not None:
            for name, walk in _walks_of_limited(type, code):
                walks[name] = (*walks.get(name, ()), walk)
    return walks


@lru_cache(maxsize=4096)
def _walks(parameter: Parameter, base: str) -> tuple[tuple[str, Walk], ...]:
    sink = _sink(parameter.name, parameter.kind, base)
    branches = parse(parameter.definition.expression)
    return tuple(start for branch in branches for start in compile_walk(branch, parameter.kind.suffixes, sink))


def _walks_of_limited(type: str, code: str) -> list[tuple[str, Walk]]:
    """Walks to what answers the modifiers of a reference parameter limited to one type, whose other entries are those of another parameter.

    An identifier alone does not say to what type it belongs; the reference around it may.
    """
    parameter = r4_parameters(type)[code]

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
