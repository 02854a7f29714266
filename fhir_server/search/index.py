"""From a resource to its index entries, by R4's own search parameters, compiled once for each type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, Final

from fhir_server.jsontext import Path
from fhir_server.resources import definitions
from fhir_server.resources.definitions import SearchParameter
from fhir_server.search.element_paths import Out, Walk, compile_walk
from fhir_server.search.expression import TrueUnlessFalse, parse
from fhir_server.search.parameter_aliases import IndexedAs, index_forms
from fhir_server.search.parameter_types import PARAMETER_TYPES, ParameterType
from fhir_server.search.visibility import Entry

# Known to R4 and not served: kinds that need more than one entry or a map, and two of Bundle whose values are resources.
UNSUPPORTED_KINDS: Final = frozenset({"composite", "special"})
UNSUPPORTED: Final = frozenset({("Bundle", "composition"), ("Bundle", "message")})

# Kept with the row (_id), or added by the write path, which alone knows it (_lastUpdated).
_ELSEWHERE: Final = frozenset({"_id", "_lastUpdated"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """A served parameter: HL7's definition, its kind, what its questions are asked of, and its targets narrowed to that.

    ``flag`` marks an expression that is true or false of every row; only "true" is indexed.
    """

    type: str
    definition: SearchParameter
    kind: ParameterType
    indexed_as: IndexedAs
    targets: tuple[str, ...]
    flag: bool


@cache
def parameters(type: str) -> Mapping[str, Parameter]:
    """Code -> parameter, for those served of this type.  Raises KeyError for a type R4 does not have."""
    served = tuple(p for p in definitions.search_parameters(type) if _is_served(type, p))
    forms = index_forms(served)
    return MappingProxyType({p.code: _parameter(type, p, forms[p.code]) for p in served})


def supported(type: str) -> tuple[SearchParameter, ...]:
    """HL7's definitions of the parameters served of this type, for the CapabilityStatement."""
    return tuple(parameter.definition for parameter in parameters(type).values())


def indexed_as(type: str, param: str) -> IndexedAs:
    """What a question about ``param`` is asked of: index entries exist under these names only."""
    return parameters(type)[param].indexed_as


def entries(type: str, resource: Mapping[str, Any], base: str) -> tuple[Entry, ...]:
    """The index entries of a valid resource (as :func:`fhir_server.jsontext.parse` gives it), each with its element's path.

    No two are alike, though a value given twice has an entry for each of its paths.  Without ``_id`` and
    ``_lastUpdated``; visibility classes are the caller's.  ``base`` is our FHIR base URL, by which absolute references to
    our own rows are known.
    """
    plan = _plan(type, base)
    found: Out = []
    for name, value in resource.items():
        for walk in plan.get(name, ()):
            walk(value, (), found)
    return tuple(found)


def targets(type: str, param: str, resource: Mapping[str, Any], base: str) -> tuple[str, ...]:
    """What the resource refers to by reference parameter ``param``, in order (for includes, and never unredacted)."""
    found: Out = []
    for name, walk in _walks(type, param, base):
        if name in resource:
            walk(resource[name], (), found)
    return tuple(dict.fromkeys(entry.value[0] for entry in found))


def _is_served(type: str, parameter: SearchParameter) -> bool:
    return parameter.kind not in UNSUPPORTED_KINDS and (type, parameter.code) not in UNSUPPORTED


def _parameter(type: str, definition: SearchParameter, stands: IndexedAs) -> Parameter:
    narrowed = (stands.limit,) if stands.limit else definition.targets
    flag = any(isinstance(step, TrueUnlessFalse) for branch in parse(definition.expression) for step in branch)
    return Parameter(type, definition, PARAMETER_TYPES[definition.kind], stands, narrowed, flag)


@lru_cache(maxsize=512)
def _plan(type: str, base: str) -> Mapping[str, tuple[Walk, ...]]:
    plan: dict[str, tuple[Walk, ...]] = {}
    for code, parameter in parameters(type).items():
        if parameter.indexed_as == IndexedAs((code,)) and code not in _ELSEWHERE:
            for name, walk in _walks(type, code, base):
                plan[name] = (*plan.get(name, ()), walk)
    return plan


@lru_cache(maxsize=4096)
def _walks(type: str, code: str, base: str) -> tuple[tuple[str, Walk], ...]:
    parameter = parameters(type)[code]
    sink = _sink(code, parameter.kind, base)
    branches = parse(parameter.definition.expression)
    return tuple(start for branch in branches for start in compile_walk(branch, parameter.kind.suffixes, sink))


def _sink(code: str, kind: ParameterType, base: str) -> Walk:
    extract, name = kind.extract, kind.entry

    def sink(value: Any, path: Path, out: Out) -> None:
        for found, below in extract(value, base):
            out.append(Entry(code, name, found, path + below))

    return sink
