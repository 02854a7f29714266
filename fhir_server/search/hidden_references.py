"""Conditions on references, asked by a caller who does not see every row that a row may refer to.

A reference to a hidden row is cut from what its caller reads, so it must not be found, counted or sorted by either.
Which targets are in view depends on the instant and the caller, which no class of an index entry can hold; so a
condition's targets are looked up first, and what could only be answered from hidden targets is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator

from fhir_server.errors import Problem
from fhir_server.resources import catalog
from fhir_server.search.filters import AllOf, AnyOf, Filter, Has, Not, Present, RefersTo
from fhir_server.search.index import parameters
from fhir_server.search.rows import SortKey


def hideable(target: str) -> bool:
    """Whether a reference's target is a row that some callers do not see: a local ``Type/id`` that belongs to somebody."""
    declared = catalog().get(target.partition("/")[0])
    return declared is not None and declared.data_class not in ("directory", "medication-definition") and target.count("/") == 1


def targets(where: Filter) -> Iterator[str]:
    """The hideable rows that a condition asks references to."""
    match where:
        case Has(_, RefersTo(named)):
            yield from (target for target in named if hideable(target))
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from targets(part)
        case Not(part):
            yield from targets(part)


def limit_to_visible(where: Filter, shown: frozenset[str]) -> Filter:
    """The condition, asking for no reference to a hideable row that is not ``shown``."""
    match where:
        case Has(param, RefersTo(named)):
            return Has(param, RefersTo(frozenset(target for target in named if target in shown or not hideable(target))))
        case AllOf(parts):
            return AllOf(tuple(limit_to_visible(part, shown) for part in parts))
        case AnyOf(parts):
            return AnyOf(tuple(limit_to_visible(part, shown) for part in parts))
        case Not(part):
            return Not(limit_to_visible(part, shown))
    return where


def require_answerable(type: str, where: Filter, sort: tuple[SortKey, ...]) -> None:
    """Refuse ``:missing`` and ``_sort`` by a parameter whose targets may be out of view; always, whatever is stored.

    Raises Problem ``invalid``.
    """
    asked = {*_present(where), *(key.param for key in sort)}
    for param in sorted(asked):
        found = parameters(type).get(param)
        if found is not None and found.definition.kind == "reference" and any(hideable(f"{target}/x") for target in found.targets):
            raise Problem("invalid", f"The parameter {param!r} can be asked for by its value only.")


def _present(where: Filter) -> Iterator[str]:
    match where:
        case Present(param):
            yield param
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _present(part)
        case Not(part):
            yield from _present(part)
