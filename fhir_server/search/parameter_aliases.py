"""Which parameters need no index rows of their own, because others' rows answer for them.

R4 defines Observation ``patient`` as ``subject`` limited to patients, ``combo-code`` as ``code`` or ``component-code``,
Patient ``phonetic`` as ``name``.  Such a parameter is asked as what it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fhir_server.resources.definitions import SearchParameter
from fhir_server.search.expression import Branch, WhereRefersTo, parse


@dataclass(frozen=True, slots=True)
class IndexedAs:
    """What a parameter stands for: any entry of ``params``; with ``limit`` only those that refer to that resource type."""

    params: tuple[str, ...]
    limit: str | None = None


def index_forms(parameters: tuple[SearchParameter, ...]) -> Mapping[str, IndexedAs]:
    """Parameter code -> what it stands for; itself where it is indexed."""
    branches = {parameter.code: frozenset(parse(parameter.expression)) for parameter in parameters}
    found: dict[str, IndexedAs] = {}
    # Those of few and unlimited branches first: a parameter is only ever expressed by parameters before it.
    for parameter in sorted(parameters, key=lambda p: (_limit(branches[p.code]) is not None, len(branches[p.code]), p.code)):
        own = branches[parameter.code]
        kept = {
            other.code: branches[other.code]
            for other in parameters
            if other.kind == parameter.kind and found.get(other.code) == IndexedAs((other.code,))
        }
        found[parameter.code] = _stands_for(own, kept) or IndexedAs((parameter.code,))
    return found


def _stands_for(own: frozenset[Branch], kept: Mapping[str, frozenset[Branch]]) -> IndexedAs | None:
    limit = _limit(own)
    wanted = own if limit is None else frozenset(branch[:-1] for branch in own)
    parts = {code: branches for code, branches in kept.items() if branches <= wanted}
    covered = frozenset().union(*parts.values()) if parts else frozenset()
    return IndexedAs(tuple(sorted(parts)), limit) if covered == wanted else None


def _limit(branches: frozenset[Branch]) -> str | None:
    limits = {branch[-1].type if isinstance(branch[-1], WhereRefersTo) else None for branch in branches}
    return limits.pop() if len(limits) == 1 else None
