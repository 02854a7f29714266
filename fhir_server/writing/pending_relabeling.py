"""Relabeling that one transaction cannot do: what it leaves behind, and the small steps in which the rest is done.

:mod:`fhir_server.access.pending_labels` says what a mark is and how it hides rows.  Besides the mark there is a queue of what is to
be done, in records of the same transactions, so a step is done as a whole or not at all, and whoever comes next continues.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

import msgspec

from fhir_server.access.pending_labels import MARKS, MAX_IDS, ROWS, LabelChange, Mark, PendingRows
from fhir_server.resources import catalog
from fhir_server.store import Store, Transaction

QUEUE: Final = "pending-relabeling"
"""The kind of the records that say what is to be done; their keys begin with the id of the mark."""
MAX_ROWS: Final = 200_000  # of one mark; more are not listed one by one
_PAGE: Final = 20_000  # names that one query returns
_TARGETS: Final = 500  # in one query
PORTION: Final = 100  # rows of one record of the queue, and of one step
_CHOICE: Final = 16  # records from which a step chooses, so that several processes rarely take the same one
_IDS: Final = 5_000  # in one record of a mark


class Work(msgspec.Struct, frozen=True):
    """What is to be done: label ``rows`` again, or those that refer to ``dependents_of`` and come after ``after`` in order.

    ``generation``: how many changes of other rows, one because of the other, led to it.
    """

    rows: tuple[str, ...] = ()
    dependents_of: str = ""
    after: str = ""
    generation: int = 0


class Backlog:
    """What one transaction knows and stores of pending relabeling.  ``pending``: the marks that it found."""

    def __init__(self, tx: Transaction, propagates: Callable[[str], bool], pending: Iterable[PendingRows] = ()) -> None:
        """``propagates(type)``: whether anything inherits from rows of this type."""
        self._tx = tx
        self._propagates = propagates
        self._pending = tuple(pending)
        self._added: dict[str, list[Mark]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no row is pending."""
        return not self._pending and not self._added

    def marks_of(self, name: str) -> list[Mark]:
        """The marks under which the row ``Type/id`` is pending."""
        return [pending.mark for pending in self._pending if pending.holds(name)] + self._added.get(name, [])

    async def add(self, change: LabelChange, source: str, rows: Mapping[str, tuple[str, ...]], sources: Iterable[str], keeps: bool) -> None:
        """Hide these rows, by name with their patients, and all that inherit from them or from ``sources``; note them as work.

        ``change``: of what the row ``source`` lends.  Its new labels must be those that the transaction stores.
        """
        # First, so that of two concurrent transactions one sees what the other did: each write reads this counter.
        await self._tx.advance_epoch(None)
        sources = list(sources)
        found = await self._closure(rows, sources)
        listed = dict(rows) if found is None else found
        by_type: dict[str, list[str]] = {}
        for name in listed:
            type, _, id = name.partition("/")
            by_type.setdefault(type, []).append(id)
        whole = {
            type: tuple(sorted({patient for id in ids for patient in listed[f"{type}/{id}"]}))
            for type, ids in by_type.items()
            if len(ids) > MAX_IDS
        }
        is_unknown = found is None or any(not listed[f"{type}/{id}"] for type in whole for id in by_type[type])
        mark = Mark(uuid.uuid4().hex, source, change, len(listed), whole, is_unknown, keeps)
        await self._tx.set_record(MARKS, mark.id, msgspec.json.encode(mark))
        numbered = ((type, portion) for type in sorted(by_type) for portion in _portions(by_type[type], _IDS))
        for n, (type, portion) in enumerate(numbered):
            await self._tx.set_record(ROWS, f"{mark.id}/{n:06}", msgspec.msgpack.encode({type: portion}))
        for name in listed:
            self._added.setdefault(name, []).append(mark)
        await add_work(self._tx, mark.id, rows, sources)

    async def _closure(self, rows: Mapping[str, tuple[str, ...]], sources: Iterable[str]) -> dict[str, tuple[str, ...]] | None:
        """The rows and all that inherit from them or from ``sources``; None if they are too many to list."""
        found = dict(rows)
        waiting = list(dict.fromkeys((*sources, *rows)))
        while waiting:
            new: dict[str, tuple[str, ...]] = {}
            for targets in _portions([name for name in waiting if self._propagates(name.partition("/")[0])], _TARGETS):
                async for name, patients in _referrers(self._tx, targets):
                    if name not in found:
                        new[name] = found[name] = patients
                    if len(found) > MAX_ROWS:
                        return None
            for names in _portions(waiting, _TARGETS):
                for name in await self._tx.referred_names_unfiltered(names, taken_through()):
                    if name not in found:
                        new[name] = found[name] = ()
            waiting = list(new)
        return found


async def _referrers(tx: Transaction, targets: Collection[str]) -> AsyncIterator[tuple[str, tuple[str, ...]]]:
    after = ""
    while page := await tx.referrer_names_unfiltered(targets, after, _PAGE):
        for item in page.items():
            yield item
        if len(page) < _PAGE:
            return
        after = max(page)


async def add_work(tx: Transaction, mark: str, rows: Iterable[str], sources: Iterable[str] = (), generation: int = 0) -> None:
    """Add rows to the work of a mark, and the rows that inherit directly from ``sources``."""
    for portion in _portions(list(rows), PORTION):
        await _add(tx, mark, Work(tuple(portion), generation=generation))
    for source in sources:
        await _add(tx, mark, Work(dependents_of=source, generation=generation))


async def _add(tx: Transaction, mark: str, work: Work) -> None:
    await tx.set_record(QUEUE, f"{mark}/{uuid.uuid4().hex}", msgspec.json.encode(work))


class TakenWork(NamedTuple):
    """What a step has taken from the queue: the mark that it belongs to, and rows to label again."""

    mark: Mark
    rows: tuple[str, ...]
    generation: int = 0


async def take_work(tx: Transaction) -> TakenWork | None:
    """Take a portion of the work from the queue; end the marks that have none left.  None: no mark is left."""
    marks = {key: msgspec.json.decode(value, type=Mark) for key, value in await tx.records_unfiltered(MARKS)}
    if not marks:
        return None
    found = await tx.records_unfiltered(QUEUE, limit=_CHOICE)
    if not found:
        for id in marks:
            await _end(tx, id)
        return TakenWork(next(iter(marks.values())), ())
    key, value = random.choice(found)
    await tx.set_record(QUEUE, key, None)
    mark, work = marks[key.partition("/")[0]], msgspec.json.decode(value, type=Work)
    if not work.dependents_of:
        return TakenWork(mark, work.rows, work.generation)
    page = await tx.referrer_names_unfiltered((work.dependents_of,), work.after, _PAGE)
    await add_work(tx, mark.id, page)
    if len(page) == _PAGE:
        await _add(tx, mark.id, Work(dependents_of=work.dependents_of, after=max(page)))
    return TakenWork(mark, ())


async def _end(tx: Transaction, mark: str) -> None:
    for key, _ in await tx.records_unfiltered(ROWS, f"{mark}/"):
        await tx.set_record(ROWS, key, None)
    await tx.set_record(MARKS, mark, None)
    await tx.advance_epoch(None)


async def count_pending(store: Store) -> int:
    """How many rows are hidden until they are labeled again: 0 if none, otherwise about how many are still to be done."""
    marks = [msgspec.json.decode(value, type=Mark) for _, value in await store.key_values.list_all(MARKS, 0)]
    works = [(key.partition("/")[0], msgspec.json.decode(value, type=Work)) for key, value in await store.key_values.list_all(QUEUE, 0)]
    unlisted = {mark for mark, work in works if work.dependents_of}  # some of their rows are not in the queue yet
    listed = Counter[str]()
    for id, work in works:
        listed[id] += len(work.rows)
    return max(sum(max(listed[mark.id], mark.rows) if mark.id in unlisted else listed[mark.id] for mark in marks), bool(marks))


def _portions(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


@cache
def taken_through() -> frozenset[str]:
    """The reference parameters, as "Type.param", through which rows take labels from those that name them."""
    return frozenset(param for declared in catalog().values() for param in declared.inherits_from_referrers)
