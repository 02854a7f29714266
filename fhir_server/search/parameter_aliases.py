"""Finds the parameters that need no index entries of their own, because the entries of others answer them.

R4 defines Observation ``patient`` as ``subject`` limited to patients, ``combo-code`` as ``code`` or ``component-code``, Patient
``phonetic`` as ``name``. A search by such a parameter uses the entries of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fhir_server.resources.definitions import SearchParameter
from fhir_server.search.expression import Branch, WhereRefersTo, parse


@dataclass(frozen=True, slots=True)
class IndexedAs:
    """The entries that answer a parameter: those of ``params``; with ``limit`` only those that refer to that resource type."""

    params: tuple[str, ...]
    limit: str | None = None


def index_forms(parameters: tuple[SearchParameter, ...]) -> Mapping[str, IndexedAs]:
    """Parameter code -> the entries that answer it; its own if it is indexed."""
    branches = {parameter.code: frozenset(parse(parameter.expression)) for parameter in parameters}
    found: dict[str, IndexedAs] = {}
    # Parameters with few branches and without a limit come first: a parameter is only expressed by earlier ones.
    for parameter in sorted(parameters, key=lambda p: (_limit(branches[p.code]) is not None, len(branches[p.code]), p.code)):
        own = branches[parameter.code]
        indexed = {
            other.code: branches[other.code]
            for other in parameters
            if other.kind == parameter.kind and found.get(other.code) == IndexedAs((other.code,))
        }
        found[parameter.code] = _form(own, indexed) or IndexedAs((parameter.code,))
    return found


def _form(own: frozenset[Branch], indexed: Mapping[str, frozenset[Branch]]) -> IndexedAs | None:
    limit = _limit(own)
    wanted = own if limit is None else frozenset(branch[:-1] for branch in own)
    parts = {code: branches for code, branches in indexed.items() if branches <= wanted}
    covered = frozenset().union(*parts.values()) if parts else frozenset()
    return IndexedAs(tuple(sorted(parts)), limit) if covered == wanted else None


def _limit(branches: frozenset[Branch]) -> str | None:
    limits = {branch[-1].type if isinstance(branch[-1], WhereRefersTo) else None for branch in branches}
    return limits.pop() if len(limits) == 1 else None
