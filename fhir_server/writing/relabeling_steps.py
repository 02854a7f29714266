"""Does what is pending of relabeling (:mod:`~fhir_server.writing.pending_relabeling`), one small transaction after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter

from fhir_server.consent.labeling import Labeler
from fhir_server.store import Store, Transaction
from fhir_server.writing.background_work import keep_working
from fhir_server.writing.pending_relabeling import Backlog, add_work, count_pending, take_work
from fhir_server.writing.propagation import Propagation
from fhir_server.writing.row_labeling import RowLabeler

_log = logging.getLogger("fhir_server")
_LONGEST_PAUSE = 0.05  # seconds between two steps, in which others write
_REPORTED_STEPS = 50  # after so many steps there is a line in the log
_GENERATIONS = 50  # after so many changes that follow from each other, labels are only added, so that there is an end


async def relabel_next(store: Store, labeler: Labeler, base: str) -> bool:
    """Label the next portion of pending rows again.  Return False if nothing is pending.

    Safe to interrupt, and to run in several processes.
    """

    async def step(tx: Transaction) -> bool:
        taken = await take_work(tx)
        if taken is None:
            return False
        rows, backlog = RowLabeler(tx, labeler, base), Backlog(tx, labeler.propagates_labels)
        keeps_labels = taken.mark.keeps_labels or taken.generation > _GENERATIONS
        heirs, left = await Propagation(tx, labeler, rows, backlog, keeps_labels).relabel_portion(taken.rows)
        await add_work(tx, taken.mark.id, left, generation=taken.generation)
        await add_work(tx, taken.mark.id, heirs, generation=taken.generation + 1)
        return True

    return await store.write(step)


async def relabel_all_pending(store: Store, labeler: Labeler, base: str) -> None:
    """Do all that is pending: at the end of a command, so that nothing stays hidden until a server runs."""
    while await relabel_next(store, labeler, base):
        pass


async def keep_relabeling(
    store: Store, labeler: Labeler, base: str, report: Callable[[int], None], may_write: Callable[[], bool] = lambda: True
) -> None:
    """Do what is pending, whenever anything is and ``may_write()`` is true; never returns.

    ``report`` is told about how many rows are pending.
    """
    failure = "Pending labels could not be brought up to date"
    await keep_working(lambda: _work_off(store, labeler, base, report), may_write, failure)


async def _work_off(store: Store, labeler: Labeler, base: str, report: Callable[[int], None]) -> None:
    if (pending := await count_pending(store)) == 0:
        return
    steps = 0
    began = perf_counter()
    _log.info("Resources hidden until their labels follow a change: about %d.", pending)
    report(pending)
    while await relabel_next(store, labeler, base):
        steps += 1
        if steps % _REPORTED_STEPS == 0:
            pending = await count_pending(store)
            _log.info("Resources hidden until their labels follow a change: about %d left.", pending)
            report(pending)
        await asyncio.sleep(min(perf_counter() - began, _LONGEST_PAUSE))
        began = perf_counter()
    _log.info("All labels are up to date; no resource is hidden for this reason any more.")
    report(0)
