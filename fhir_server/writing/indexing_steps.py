"""Gives stored rows the index entries of new search parameters, one small transaction after the other.

The work is a record: which definitions it completes, and where it is.  So it may be interrupted, and several processes may do it.
Rows are labeled again as they are indexed, and keep the labels that they have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from fhir_server.access.stored_parameters import KIND, StoredDefinition, read_definitions
from fhir_server.consent.labeling import Labeler
from fhir_server.errors import Problem
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.rows import Position
from fhir_server.search.visibility import Visibility
from fhir_server.store import Page, Store, Transaction
from fhir_server.writing.background_work import keep_working
from fhir_server.writing.writer import ResourceWriter

WORK: Final = "search-parameter-index"
"""The kind of the one record that says what is being indexed."""
_KEY: Final = "work"
_PAGE: Final = 100
_PAUSE: Final = 0.05  # seconds between two steps, in which others write
_REPORTED_STEPS: Final = 50  # after so many steps there is a line in the log
_log = logging.getLogger("fhir_server")


class Indexing(msgspec.Struct, frozen=True):
    """The work on some definitions.

    ``definitions``  those that are complete at its end, by the id of the SearchParameter
    ``types``        the types whose rows are still to be indexed, the current one first
    ``after``        the last row that is done
    ``done``         how many rows are done
    """

    definitions: dict[str, StoredDefinition]
    types: tuple[str, ...]
    after: Position | None = None
    done: int = 0


async def index_next(store: Store, labeler: Labeler, base: str, now: Callable[[], int]) -> Indexing | None:
    """Index the next portion of rows.  Returns what is still to be done, or None if no definition waits for anything."""

    async def step(tx: Transaction) -> Indexing | None:
        found = dict(await tx.records_unfiltered(WORK))
        work = msgspec.json.decode(found[_KEY], type=Indexing) if _KEY in found else await _begun(tx)
        if work is None:
            return None
        after = await _index_page(ResourceWriter(tx, labeler, base, now(), keeps_labels=True), tx, work, now()) if work.types else work
        if not after.types:
            await _complete(tx, after)
        await tx.set_record(WORK, _KEY, msgspec.json.encode(after) if after.types else None)
        return after

    return await store.write(step)


async def _begun(tx: Transaction) -> Indexing | None:
    waiting = {id: one for id, one in (await read_definitions(tx)).items() if not one.ready}
    types = {parameter.type for definition in waiting.values() for parameter in definition.parameters}
    return Indexing(waiting, tuple(sorted(types))) if waiting else None


async def _index_page(writer: ResourceWriter, tx: Transaction, work: Indexing, now: int) -> Indexing:
    type, *later = work.types
    visibility = Visibility.unrestricted(len(await tx.classes()), now)
    page = await _page(tx, type, visibility, work.after)
    for row in page.rows:
        await writer.relabel_with_dependents(row, reindexes=True)
    types = work.types if page.next is not None else tuple(later)
    return Indexing(work.definitions, types, page.next, work.done + len(page.rows))


async def _page(tx: Transaction, type: str, visibility: Visibility, after: Position | None) -> Page:
    try:
        return await tx.find(type, EVERYTHING, visibility, limit=_PAGE, after=after)
    except Problem:  # the row at which the last page ended is deleted
        return await tx.find(type, EVERYTHING, visibility, limit=_PAGE)


async def _complete(tx: Transaction, work: Indexing) -> None:
    """Let those of the definitions be used that are still as they were when the work began."""
    current = await read_definitions(tx)
    for id, definition in work.definitions.items():
        if current.get(id) == definition:
            await tx.set_record(KIND, id, msgspec.json.encode(msgspec.structs.replace(definition, ready=True)))
    await tx.advance_epoch(None)


async def begin_again(tx: Transaction) -> None:
    """Let what is being indexed begin again: the record of the work names a row, which may be erased."""
    await tx.set_record(WORK, _KEY, None)


async def index_all(store: Store, labeler: Labeler, base: str, now: Callable[[], int]) -> None:
    """Do all that is to be indexed: at the end of a command, so that nothing is refused until a server runs."""
    while await index_next(store, labeler, base, now) is not None:
        pass


async def keep_indexing(
    store: Store, labeler: Labeler, base: str, now: Callable[[], int], may_write: Callable[[], bool] = lambda: True
) -> None:
    """Do what is to be indexed, whenever anything is and ``may_write()`` is true; never returns."""

    async def work() -> None:
        if await is_waiting(store):
            await _work_off(store, labeler, base, now)

    await keep_working(work, may_write, "New search parameters could not be indexed")


async def progress(store: Store) -> str:
    """How far it is, as a sentence for the operator; "" if nothing is to be indexed."""
    async with store.snapshot() as snapshot:
        waiting = [one for one in (await read_definitions(snapshot)).values() if not one.ready]
        found = dict(await snapshot.records_unfiltered(WORK))
    if not waiting:
        return ""
    names = ", ".join(sorted({f"{one.type}.{one.code}" for definition in waiting for one in definition.parameters}))
    work = msgspec.json.decode(found[_KEY], type=Indexing) if _KEY in found else None
    done = f"{work.done} resources are indexed, now {work.types[0]}" if work is not None else "nothing is indexed yet"
    return f"Searches by {names} are refused until stored resources are indexed; a running server does that ({done})."


async def is_waiting(store: Store) -> bool:
    """Whether the index of any definition is not complete."""
    async with store.snapshot() as snapshot:
        return any(not one.ready for one in (await read_definitions(snapshot)).values())


async def _work_off(store: Store, labeler: Labeler, base: str, now: Callable[[], int]) -> None:
    steps = 0
    while (work := await index_next(store, labeler, base, now)) is not None:
        if not work.types:
            _log.info("Search parameters are ready: %s. Indexed resources: %d.", _codes(work), work.done)
        elif steps % _REPORTED_STEPS == 0:
            _log.info("Search parameters are being indexed: %s. Resources so far: %d; now %s.", _codes(work), work.done, work.types[0])
        steps += 1
        await asyncio.sleep(_PAUSE)


def _codes(work: Indexing) -> str:
    return ", ".join(sorted({f"{one.type}.{one.code}" for definition in work.definitions.values() for one in definition.parameters}))
