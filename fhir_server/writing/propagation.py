"""Propagates labels: rows that inherit from a changed row are labeled again, in all their versions.

Old versions inherit from what is current now: a label that is added later holds for the whole history.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import msgspec

from fhir_server import jsontext
from fhir_server.access import versions
from fhir_server.access.pending_labels import LabelChange
from fhir_server.consent.labeling import Labeler
from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.resources import catalog
from fhir_server.store import IndexedRow, Row, Transaction, VersionHistory, version_summary
from fhir_server.store.version_rebase import View
from fhir_server.writing.pending_relabeling import Backlog, taken_through
from fhir_server.writing.row_labeling import RowLabeler

MAX_ROWS: Final = 500
"""How many rows that inherit labels a transaction labels again; if there are more, they are hidden and have their turn later.

A row counts as several if it has many versions, because all of them are labeled.
"""
_VERSIONS: Final = 2  # of one row; to label them costs about as much as another row


class Propagation:
    """The relabeling that the writes of one transaction require.

    ``keeps_labels``: rows keep the labels they are stored with besides their new ones.  ``backlog`` takes what one transaction
    cannot do.
    """

    def __init__(self, tx: Transaction, labeler: Labeler, rows: RowLabeler, backlog: Backlog, keeps_labels: bool = False) -> None:
        self._keeps_labels = keeps_labels
        self._backlog = backlog
        self._room = MAX_ROWS
        self._tx = tx
        self._labeler = labeler
        self._rows = rows
        self._pending: set[str] = set()
        self._named: dict[str, frozenset[str]] = {}
        self._change = LabelChange()  # of what the row lends from which the rows inherit that are labeled again now

    async def relabel(self, row: Row, *, reindexes: bool = False) -> bool:
        """Label the current version, or the deletion, and all versions before it again.

        ``reindexes``: also store the index entries of versions whose visibility stays.  Returns whether the visibility of any of them
        changed.
        """
        changed: list[IndexedRow] = []
        same: list[IndexedRow] = []
        previous: IndexedRow | None = None
        named: set[str] = set()
        versions = (*(await self._tx.read_past_unfiltered(row.type, row.id) if row.version > 1 else ()), row)
        numbers = [version.version for version in versions]
        has_gap = numbers != [*range(1, len(numbers) + 1)]
        views = await self._new_views(versions) if has_gap else {}
        for version in versions:
            if version.version == (previous.row.version if previous else 0) + 1:
                previous = await self._relabeled(version, previous)
            else:  # the version before it is purged
                stored = version if self._keeps_labels else None
                previous = await self._rows.label(version, jsontext.parse(version.body), None, stored=stored, purged=views)
            named |= _named_specimens(previous)
            (changed if _visibility(previous.row) != _visibility(version) else same).append(previous)
        if reindexes and same:
            await self._tx.relabel(*sorted((*changed, *same), key=lambda indexed: indexed.row.version))
        elif changed:
            await self._tx.relabel(*changed)
        if changed:
            self._rows.forget(f"{row.type}/{row.id}")
            self._named[f"{row.type}/{row.id}"] = frozenset(named)
        return bool(changed)

    async def after_write(self, indexed: IndexedRow, previous: Row | None) -> None:
        """Note what the write of a row, which followed ``previous``, means for rows that inherit from it."""
        row = indexed.row
        name = f"{row.type}/{row.id}"
        before = await self._rows.lends(previous) if previous is not None else None
        self._rows.forget(name)
        await self._hide_if_source_is_pending(row)
        self._pending |= self._rows.pop_waiting(name)
        after = await self._rows.lends(row) if before is not None else None
        if before != after or await self._rows.has_labels(row):
            self._named[name] = await self._specimens_of(indexed)
        if before is not None and after is not None and before != after:
            self._change = label_change(before, after)
            await self.relabel_dependents(name)
            self._change = LabelChange()
        else:
            await self._relabel_all(await self._take_named(name), {name}, name)

    async def _specimens_of(self, indexed: IndexedRow) -> frozenset[str]:
        """The rows that any version of this one names and that take labels from it: what has been lent stays lent."""
        row = indexed.row
        if row.version == 1 or row.type not in _types_that_name_specimens():
            return _named_specimens(indexed)
        return await self._tx.referred_names_unfiltered((f"{row.type}/{row.id}",), taken_through())

    async def relabel_pending(self) -> None:
        """Label the rows again that were labeled before a row from which they inherit was written."""
        while self._pending:
            type, _, id = self._pending.pop().partition("/")
            row = await self._tx.read_unfiltered(type, id)
            if row is None:
                continue
            if self._room <= 0:
                await self._leave([row], (), f"{type}/{id}")
                continue
            self._room -= _rows_worth(row)
            if await self.relabel(row):
                await self.relabel_dependents(f"{type}/{id}")

    async def after_creation(self, name: str) -> None:
        """Label the rows again that already refer to the new row ``Type/id``, unless it is a person of whom nothing is inherited."""
        type, _, id = name.partition("/")
        row = await self._tx.read_unfiltered(type, id) if type == "Practitioner" else None
        if row is None or await self._rows.has_department(row):
            await self.relabel_dependents(name)

    async def relabel_dependents(self, name: str) -> None:
        """Label the rows again that inherit from the row ``Type/id``, directly or through others."""
        rows = await self._dependents(name)
        if rows is None:
            await self._leave(await self._take_named(name), (name,), name)
        else:
            await self._relabel_all(rows, {name}, name)

    async def _relabel_all(self, rows: list[Row], done: set[str], source: str) -> None:
        """Label these rows again, and what inherits from those that change; ``done``: rows whose dependents have their turn already.

        ``source``: the changed row.  What is too much for one transaction is left for later.
        """
        waiting = list(rows)
        unfinished: list[str] = []
        while waiting and self._room > 0:
            row = waiting.pop()
            self._room -= _rows_worth(row)
            name = f"{row.type}/{row.id}"
            # A specimen lends less than it is labeled with, so what it lends may have changed even if its labels have not.
            if (await self.relabel(row) or catalog()[row.type].inherits_from_referrers) and name not in done:
                done.add(name)
                dependents = await self._dependents(name)
                if dependents is None:
                    unfinished.append(name)
                    dependents = await self._take_named(name)
                waiting += dependents
        if waiting or unfinished:
            await self._leave(waiting, unfinished, source)

    async def _leave(self, rows: list[Row], unfinished: Sequence[str], source: str) -> None:
        """Hide rows, and all that inherit from these or from ``unfinished``, until they are labeled again in later transactions."""
        patients = {f"{row.type}/{row.id}": row.patients for row in rows}
        await self._backlog.add(self._change, source, patients, unfinished, self._keeps_labels)

    async def _hide_if_source_is_pending(self, row: Row) -> None:
        """If a written row has labels from one that is still to be labeled again, it has its turn after that, and is hidden until then."""
        if self._backlog.is_empty:
            return
        name = f"{row.type}/{row.id}"
        own = {mark.id for mark in self._backlog.marks_of(name)}
        marks = {mark.id: mark for source in self._rows.sources_of(name) for mark in self._backlog.marks_of(source) if mark.id not in own}
        for mark in marks.values():
            await self._backlog.add(mark.change, mark.source, {name: row.patients}, (), mark.keeps_labels)

    async def relabel_portion(self, names: Sequence[str]) -> tuple[list[str], Sequence[str]]:
        """Label these rows again.

        Return the rows that inherit from those that changed, which are to be labeled again after them, and those of ``names`` that
        are left because the rows before them have many versions.
        """
        await self._tx.prefetch(names)
        changed: list[str] = []
        left: Sequence[str] = ()
        for number, name in enumerate(names):
            if self._room <= 0:
                left = names[number:]
                break
            row = await self._tx.read_unfiltered(*name.split("/"))
            self._room -= _rows_worth(row) if row is not None else 0
            if row is not None and (await self.relabel(row) or catalog()[row.type].inherits_from_referrers):
                changed.append(name)
        dependents = {f"{row.type}/{row.id}" for name in changed for row in await self._take_named(name)}
        lending = [name for name in changed if self._labeler.propagates_labels(name.partition("/")[0])]
        if lending:
            dependents |= (await self._tx.referrer_names_unfiltered(lending)).keys()
        return sorted(dependents), left

    async def _dependents(self, name: str) -> list[Row] | None:
        """The rows that inherit directly from the row ``Type/id``, as they are now; None if they are too many for this transaction."""
        if not self._labeler.propagates_labels(name.partition("/")[0]):
            return []
        found = await self._tx.referrers_unfiltered(name, limit=max(self._room, 0) + 1)
        if len(found) > self._room:
            return None
        return [*found, *await self._take_named(name)]

    async def _take_named(self, name: str) -> list[Row]:
        """The stored specimens that this result names."""
        found = [await self._tx.read_unfiltered(*specimen.split("/")) for specimen in sorted(self._named.pop(name, ()))]
        return [row for row in found if row is not None]

    async def _new_views(self, versions: Sequence[Row]) -> dict[View, View]:
        """The class and release that stored versions have, and those that they would get now."""
        views: dict[View, View] = {}
        for version in versions:
            if version.body:
                stored = version if self._keeps_labels else None
                new = (await self._rows.label(version, jsontext.parse(version.body), None, stored=stored)).row
                views[version.class_id, version.release_at] = new.class_id, new.release_at
        return views

    async def _relabeled(self, version: Row, previous: IndexedRow | None) -> IndexedRow:
        """A stored version as it would be written now, after ``previous``; a deletion has the labels of the version it ended."""
        history = history_of(previous.row if previous else None)
        if previous is None or version.interaction != "delete":
            stored = version if self._keeps_labels else None
            return await self._rows.label(version, jsontext.parse(version.body), history, stored=stored)
        ended = previous.row
        deletion = msgspec.structs.replace(version, patients=ended.patients, class_id=ended.class_id, release_at=ended.release_at)
        deletion = msgspec.structs.replace(deletion, history=version_summary.following(history, versions.version_digest(deletion)))
        return IndexedRow(deletion, previous.entries)


def _rows_worth(row: Row) -> int:
    """As how many rows of one version a row counts."""
    return 1 + row.version // _VERSIONS


def history_of(row: Row | None) -> VersionHistory | None:
    """What the version after this one keeps of a row's versions up to this one; None for None."""
    if row is None:
        return None
    return row.history or VersionHistory(versions.version_digest(row))


def label_change(before: tuple[object, ...], after: tuple[object, ...]) -> LabelChange:
    """How what a row lends has changed (:meth:`RowLabeler.lends`)."""
    if len(before) != len(after) or not before or not isinstance(before[0], VisibilityClass) or not isinstance(after[0], VisibilityClass):
        return LabelChange()
    one, other = before[0], after[0]
    # The fourth is the number of the row's own class, which changes with its labels.
    others = [(pair[0] == pair[1]) for n, pair in enumerate(zip(before, after, strict=True)) if n not in (0, 3)]
    is_same = all(others) and (one.data, one.element) == (other.data, other.element) and one.labels != other.labels
    return LabelChange(tuple(sorted(one.labels)), tuple(sorted(other.labels)), is_same)


def _visibility(row: Row) -> tuple[object, ...]:
    """All that labeling gives to a version."""
    return row.patients, row.class_id, row.release_at, row.labeled_elements, row.guarded_references, row.history


@cache
def _types_that_name_specimens() -> frozenset[str]:
    return frozenset(param.partition(".")[0] for param in taken_through())


def _named_specimens(indexed: IndexedRow) -> frozenset[str]:
    """The rows that this one names and that take labels from it."""
    type, taken = indexed.row.type, taken_through()
    return frozenset(str(entry.value[0]) for entry in indexed.entries if entry.kind == "reference" and f"{type}.{entry.param}" in taken)
