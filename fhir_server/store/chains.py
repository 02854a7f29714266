"""Looks up the rows of steps (chained parameters and ``_has``) before a search, so that the search has plain conditions.

Inner steps come first. A step that leads to few rows becomes a condition on references or ids, by which a search can begin. Which rows
are read, and how many are too many, depends on rows that the step's Visibility admits alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Protocol

from fhir_server.search.filters import AllOf, AnyOf, Filter, Has, IdIs, Not, ReferredBy, RefersTo, RefersToMatch, Step
from fhir_server.search.steps import steps
from fhir_server.search.visibility import Visibility


class StepReader(Protocol):
    """What a store's snapshot does for the steps of a condition.  Each method answers as if nothing outside the Visibility existed."""

    async def matching_ids(self, type: str, where: Filter, visibility: Visibility) -> Collection[str] | None:
        """Return the ids of the rows that one clause admits and that meet ``where`` by what it admits; None if they are too many."""

    async def referred_targets(self, step: ReferredBy, visibility: Visibility, prefix: str) -> Collection[str] | None:
        """Return the targets that begin with ``prefix`` of the references of such rows; None if they are too many."""

    def unresolved(self, step: Step) -> Filter:
        """Return the condition for a step that leads to too many rows.  The steps within it are resolved."""


async def resolved(type: str, where: Filter, reader: StepReader) -> Filter:
    """Return the same condition on rows of ``type`` without steps, or with those for which ``reader.unresolved`` returns a step."""
    if any(step.by_canonical for step in steps(where)):
        raise TypeError("a step by canonical URL has not been followed")
    return await _resolved(type, where, reader) if any(steps(where)) else where


async def _resolved(type: str, where: Filter, reader: StepReader) -> Filter:
    match where:
        case RefersToMatch(param, target_type, inner, visibility):
            step = replace(where, where=await _resolved(target_type, inner, reader))
            ids = await reader.matching_ids(target_type, step.where, visibility) if visibility else ()
            named = None if ids is None else frozenset([f"{target_type}/{id}" for id in ids])
            return reader.unresolved(step) if named is None else Has(param, RefersTo(named))
        case ReferredBy(source, _, inner, visibility):
            by = replace(where, where=await _resolved(source, inner, reader))
            prefix = type + "/"
            targets = await reader.referred_targets(by, visibility, prefix) if visibility else ()
            return reader.unresolved(by) if targets is None else IdIs(frozenset([target.removeprefix(prefix) for target in targets]))
        case AllOf(parts):
            return AllOf(tuple([await _resolved(type, part, reader) for part in parts]))
        case AnyOf(parts):
            return AnyOf(tuple([await _resolved(type, part, reader) for part in parts]))
        case Not(part):
            return Not(await _resolved(type, part, reader))
    return where
