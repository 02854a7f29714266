"""Which reference parameters name resources by canonical URL (http://hl7.org/fhir/R4/references.html#canonical).

An index entry of such a reference is the URL, and the URL with a version: ``url|1.0``, or ``url|`` for a reference that names no version.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Final

from fhir_server.resources import definitions
from fhir_server.search.expression import Branch, Member, WhereEquals, parse
from fhir_server.search.implied_systems import element_of
from fhir_server.search.index import Parameter, r4_parameters

ANY_VERSION: Final = "|"
"""Ends the index entry of a canonical without a version, which refers to any version."""

_NAMES: Final = frozenset({"canonical", "uri"})


def follows_references(parameter: Parameter) -> bool:
    """Whether a reference parameter holds literal references."""
    return not _datatypes(parameter) <= _NAMES


def follows_canonicals(parameter: Parameter) -> bool:
    """Whether a reference parameter holds canonical URLs."""
    return not _datatypes(parameter).isdisjoint(_NAMES)


def canonical_targets(parameter: Parameter) -> tuple[str, ...]:
    """The types that it may name by a canonical URL.  R4 lists none for a canonical of any type."""
    return tuple([type for type in parameter.targets or definitions.types() if type in canonical_types()])


@cache
def canonical_types() -> frozenset[str]:
    """The types of R4 whose resources have a canonical URL and a version."""
    return frozenset(type for type in definitions.types() if {"url", "version"} <= r4_parameters(type).keys())


def url_and_version(type: str) -> tuple[str, str]:
    """The names of the index entries of the canonical URL and of the version of resources of this type."""
    known = r4_parameters(type)
    return known["url"].indexed_as.params[0], known["version"].indexed_as.params[0]


@lru_cache(maxsize=4096)
def _datatypes(parameter: Parameter) -> frozenset[str]:
    """Those of its elements; Reference for an element that is not known."""
    if parameter.datatypes:
        return parameter.datatypes
    found = [_of_branch(parameter.type, branch) for branch in parse(parameter.definition.expression)]
    return frozenset().union(*found)


def _of_branch(type: str, branch: Branch) -> frozenset[str]:
    path = tuple([step for step in branch if not isinstance(step, WhereEquals)])
    if path and isinstance(path[-1], Member) and path[-1].cast:
        return frozenset({path[-1].cast})
    element = element_of(type, path)
    return frozenset({"Reference"} if element is None else {one.code for one in element.types})
