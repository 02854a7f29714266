"""The steps of a condition: chained parameters and ``_has`` (http://hl7.org/fhir/R4/search.html#chaining).

A step needs the Visibility of the type that it leads to. A condition comes from the parser without them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

from fhir_server.errors import Problem
from fhir_server.search.filters import EVERYTHING, AllOf, AnyOf, Filter, Has, Not, ReferredBy, RefersToMatch, Step
from fhir_server.search.rows import SortKey, SortStep
from fhir_server.search.visibility import Visibility

VisibilityOf = Callable[[str, Filter], Awaitable[Visibility]]
"""The Visibility of a step's type, for rows that meet the step's condition."""


def steps(where: Filter) -> Iterator[Step]:
    """All steps of a condition, also those within other steps."""
    match where:
        case RefersToMatch() | ReferredBy():
            yield where
            yield from steps(where.where)
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                if type(part) is not Has:  # a condition may have a thousand codes
                    yield from steps(part)
        case Not(part):
            yield from steps(part)


async def with_visibilities(where: Filter, visibility_of: VisibilityOf) -> Filter:
    """The condition in which each step has the Visibility of its type; the inner steps come first.

    ``visibility_of`` raises Problem ``forbidden`` for a type that the caller may not search. An alternative that needs such a type
    (a chain leads to each type of its reference) is left out; if all do, the Problem is raised.
    """

    async def fill(step: Step) -> Filter:
        inner = await with_each_step(step.where, fill)
        return replace(step, where=inner, visibility=await visibility_of(step.type, inner))

    return await with_each_step(where, fill) if any(steps(where)) else where


async def sort_with_visibilities(sort: tuple[SortKey, ...], visibility_of: VisibilityOf) -> tuple[SortKey, ...]:
    """The sort keys in which each step has the Visibility of its type.  Raises Problem ``forbidden`` as :func:`with_visibilities` does."""
    return tuple([await _filled_key(key, visibility_of) for key in sort])


async def _filled_key(key: SortKey, visibility_of: VisibilityOf) -> SortKey:
    allowed: list[SortStep] = []
    refusal: Problem | None = None
    for step in key.steps:
        try:
            inner = await _filled_key(step.key, visibility_of)
            allowed.append(replace(step, key=inner, visibility=await visibility_of(step.type, EVERYTHING)))
        except Problem as problem:
            if problem.kind != "forbidden":
                raise
            refusal = problem
    if refusal is not None and not allowed:
        raise refusal
    return replace(key, steps=tuple(allowed))


async def with_each_step(where: Filter, change: Callable[[Step], Awaitable[Filter]]) -> Filter:
    """The condition in which what ``change`` returns is in the place of each step; steps within steps are its business.

    An alternative for which it raises Problem ``forbidden`` is left out, as :func:`with_visibilities` does.
    """
    match where:
        case RefersToMatch() | ReferredBy():
            return await change(where)
        case AllOf(parts):
            return AllOf(tuple([await with_each_step(part, change) for part in parts]))
        case AnyOf(parts):
            return await _any_allowed(parts, change)
        case Not(part):
            return Not(await with_each_step(part, change))
    return where


async def _any_allowed(parts: tuple[Filter, ...], change: Callable[[Step], Awaitable[Filter]]) -> Filter:
    allowed: list[Filter] = []
    refusal: Problem | None = None
    for part in parts:
        try:
            allowed.append(await with_each_step(part, change))
        except Problem as problem:
            if problem.kind != "forbidden":
                raise
            refusal = problem
    if refusal is not None and not allowed:
        raise refusal
    return AnyOf(tuple(allowed))
