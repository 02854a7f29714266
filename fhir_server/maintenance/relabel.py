"""``fhir-server relabel``: label and index every row again after a change of policy, value sets, departments or search parameters."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from fhir_server.consent.labeling import Labeler
from fhir_server.resources import catalog
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.rows import Position
from fhir_server.search.visibility import Visibility
from fhir_server.store import Store, Transaction
from fhir_server.writing.indexing_steps import index_all
from fhir_server.writing.relabeling_steps import relabel_all_pending
from fhir_server.writing.search_parameters import TYPE as SEARCH_PARAMETER
from fhir_server.writing.search_parameters import SearchParameterFollower
from fhir_server.writing.writer import ResourceWriter, rank

_PAGE = 500


class RelabelReport(NamedTuple):
    """The number of rows examined, and of those whose labels changed; a row that gained some and lost others counts twice."""

    examined: int
    changed: int


class LabelingContext(NamedTuple):
    """What a ResourceWriter needs besides the transaction.  ``now`` is in microseconds since 1970 UTC."""

    labeler: Labeler
    base: str
    now: int
    keeps_labels: bool


class _RelabeledPage(NamedTuple):
    """The counts of one page of rows, and the position that the next page starts after (None: it was the last)."""

    examined: int
    changed: int
    next: Position | None


async def relabel_store(store: Store, labeler: Labeler, base: str, now: int) -> RelabelReport:
    """Label and index all current rows again, then advance the permission epoch.  Safe to interrupt and to start again.

    The first pass adds labels, the second removes those that no longer hold.  So no row is shown because the row from which it
    inherits has not had its turn.
    """
    more = await _relabel_all(store, LabelingContext(labeler, base, now, keeps_labels=True))
    exact = await _relabel_all(store, LabelingContext(labeler, base, now, keeps_labels=False))
    await store.write(_advance_epoch)
    await index_all(store, labeler, base, lambda: now)
    return RelabelReport(exact.examined, more.changed + exact.changed)


async def _relabel_all(store: Store, context: LabelingContext) -> RelabelReport:
    examined = changed = 0
    for type in sorted(catalog(), key=rank):
        after: Position | None = None
        while True:
            page = await store.write(partial(_relabel_page, context, type, after))
            await relabel_all_pending(store, context.labeler, context.base)
            examined += page.examined
            changed += page.changed
            after = page.next
            if after is None:
                break
    return RelabelReport(examined, changed)


async def _relabel_page(context: LabelingContext, type: str, after: Position | None, tx: Transaction) -> _RelabeledPage:
    writer = ResourceWriter(tx, *context, parameters=SearchParameterFollower(tx, refuses=False))
    visibility = Visibility.unrestricted(len(await tx.classes()), context.now)
    page = await tx.find(type, EVERYTHING, visibility, limit=_PAGE, after=after)
    changed = 0
    for row in page.rows:
        changed += await writer.relabel_with_dependents(row, reindexes=not context.keeps_labels)
        if type == SEARCH_PARAMETER:
            await writer.take_definition(row)
    return _RelabeledPage(len(page.rows), changed, page.next)


async def _advance_epoch(tx: Transaction) -> None:
    """Invalidate the permissions that running servers have cached."""
    await tx.advance_epoch(None)
