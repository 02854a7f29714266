"""Looks up the rows of the steps of a condition where no store evaluates the step: by canonical URL, and on lines of the audit log.

What a step leads to is read in the step's Visibility: only what a search of its type shows the caller.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from fhir_server.search.filters import Filter, Has, IdIs, ReferredBy, RefersTo, RefersToMatch, Step
from fhir_server.search.limits import MAX_STEP_ROWS, too_many_step_rows
from fhir_server.search.rows import RowEntries
from fhir_server.search.visibility import Visibility


class EntriesOf(Protocol):
    """Reads visible index entries, as :meth:`fhir_server.store.Snapshot.entries_of` does."""

    async def __call__(
        self, type: str, where: Filter, visibility: Visibility, params: Collection[tuple[str, str]], limit: int
    ) -> tuple[RowEntries, ...]: ...


async def plain(type: str, where: Filter, entries_of: EntriesOf) -> Filter:
    """The condition on rows of ``type`` that a step with its Visibility is; any other condition as it is.

    Raises Problem ``invalid`` for a step that leads to too many visible rows.
    """
    match where:
        case RefersToMatch():
            return Has(where.param, RefersTo(frozenset([f"{where.type}/{row.id}" for row in await rows(where, (), entries_of)])))
        case ReferredBy():
            found = await rows(where, ((where.param, "reference"),), entries_of)
            targets = [str(entry.value[0]).partition("/") for row in found for entry in row.entries]
            return IdIs(frozenset([id for of, _, id in targets if of == type]))
    return where


async def rows(step: Step, params: Collection[tuple[str, str]], entries_of: EntriesOf) -> tuple[RowEntries, ...]:
    """The visible rows to which a step leads, with their visible entries of ``params``: (code, kind).

    Raises Problem ``invalid`` for more than :data:`~fhir_server.search.limits.MAX_STEP_ROWS`.
    """
    if step.visibility is None:
        return ()
    found = await entries_of(step.type, step.where, step.visibility, params, MAX_STEP_ROWS + 1)
    if len(found) > MAX_STEP_ROWS:
        raise too_many_step_rows(step.type, MAX_STEP_ROWS)
    return found
