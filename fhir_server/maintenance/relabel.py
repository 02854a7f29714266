"""``fhir-server relabel``: every row labelled afresh, after a change of policy, value sets or departments."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from fhir_server.consent.labeling import Labeler
from fhir_server.resources import catalog
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.rows import Position
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store import Store, Transaction
from fhir_server.writing.writer import ResourceWriter, rank

_PAGE = 500


async def relabel(store: Store, labeler: Labeler, base: str, now: int) -> tuple[int, int]:
    """(rows looked at, rows whose visibility changed).  Safe to interrupt and to start again."""
    seen = changed = 0
    for type in sorted(catalog(), key=rank):
        after: Position | None = None
        while True:
            rows, renewed, after = await store.write(partial(_page, LabelingContext(labeler, base, now), type, after))
            seen, changed = seen + rows, changed + renewed
            if after is None:
                break
    await store.write(_end_plans)
    return seen, changed


class LabelingContext(NamedTuple):
    """What labelling needs, beside the transaction."""

    labeler: Labeler
    base: str
    now: int


async def _page(with_: LabelingContext, type: str, after: Position | None, tx: Transaction) -> tuple[int, int, Position | None]:
    writing = ResourceWriter(tx, *with_)
    visibility = Visibility((VisibilityClause(None, frozenset(range(len(await tx.classes()))), released_only=False),), with_.now)
    page = await tx.find(type, EVERYTHING, visibility, limit=_PAGE, after=after)
    changed = 0
    for row in page.rows:
        changed += await writing.relabel_with_dependents(row)
    return len(page.rows), changed, page.next


async def _end_plans(tx: Transaction) -> None:
    await tx.advance_epoch(None)
