"""Restricts conditions on references to targets that are visible to the caller.

A reference to a hidden target is removed from what the caller reads, so it must not be found, counted or sorted by. Whether a target is
visible depends on the instant and the caller, which the class of an index entry cannot express. The targets in a condition are
therefore looked up before the search; conditions that hidden targets could decide are rejected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fhir_server.errors import Problem
from fhir_server.resources import catalog
from fhir_server.search.custom_parameters import code_of_entries, kind_of_entries
from fhir_server.search.filters import AllOf, AnyOf, Filter, Has, Not, Present, ReferredBy, RefersTo, RefersToMatch
from fhir_server.search.index import parameters
from fhir_server.search.rows import SortKey
from fhir_server.search.steps import steps


def is_hideable(target: str) -> bool:
    """Whether some callers may not see the target of a reference: a local ``Type/id`` outside of the directory."""
    declared = catalog().get(target.partition("/")[0])
    return declared is not None and declared.data_class != "directory" and target.count("/") == 1


def targets(where: Filter) -> Iterator[str]:
    """The hideable targets in a condition and in its steps."""
    match where:
        case Has(_, RefersTo(named)):
            yield from (target for target in named if is_hideable(target))
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from targets(part)
        case Not(part):
            yield from targets(part)
        case RefersToMatch() | ReferredBy():
            yield from targets(where.where)


def limit_to_visible(where: Filter, visible: frozenset[str]) -> Filter:
    """The condition without the hideable targets that are not in ``visible``."""
    match where:
        case Has(param, RefersTo(named)):
            return Has(param, RefersTo(frozenset(target for target in named if target in visible or not is_hideable(target))))
        case AllOf(parts):
            return AllOf(tuple(limit_to_visible(part, visible) for part in parts))
        case AnyOf(parts):
            return AnyOf(tuple(limit_to_visible(part, visible) for part in parts))
        case Not(part):
            return Not(limit_to_visible(part, visible))
        case RefersToMatch() | ReferredBy():
            return replace(where, where=limit_to_visible(where.where, visible))
    return where


def require_answerable(type: str, where: Filter, sort: tuple[SortKey, ...]) -> None:
    """Reject ``:missing`` and ``_sort`` by a parameter whose targets may be hidden, independently of the stored data.

    The same holds for the conditions of steps, and for the last parameter of a chained sort key.  Raises Problem ``invalid``.
    """
    for step in steps(where):
        _require_answerable(step.type, set(_present(step.where)))
    _require_answerable(type, set(_present(where)))
    for key in sort:
        for source, param in key.sources(type):
            _require_answerable(source, {param})


def _require_answerable(type: str, params: set[str]) -> None:
    for param in sorted(params):
        if kind_of_entries(param) == "reference":
            raise Problem("invalid", f"The parameter {code_of_entries(param)!r} supports neither :missing nor _sort.")
        known = parameters(type).get(param)
        if known is not None and known.definition.kind == "reference" and any(_may_hide(type, param, of) for of in known.targets):
            raise Problem("invalid", f"The parameter {param!r} supports neither :missing nor _sort.")


def _may_hide(type: str, param: str, target: str) -> bool:
    """Whether a visible row of ``type`` may refer to a hidden row of type ``target`` by this parameter."""
    return is_hideable(f"{target}/x") and (type, param) not in catalog()[target].seen_through


def _present(where: Filter) -> Iterator[str]:
    match where:
        case Present(param, _):
            yield param
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _present(part)
        case Not(part):
            yield from _present(part)
