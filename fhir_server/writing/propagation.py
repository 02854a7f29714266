"""Propagates labels: rows that inherit from a changed row are labeled again, in all their versions.

Old versions inherit from what is current now: a label that is added later holds for the whole history.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import msgspec

from fhir_server import jsontext
from fhir_server.access import versions
from fhir_server.consent.labeling import Labeler
from fhir_server.resources import catalog
from fhir_server.store import IndexedRow, Row, Transaction, VersionHistory, version_summary
from fhir_server.store.version_rebase import View
from fhir_server.writing.row_labeling import RowLabeler


class Propagation:
    """The relabeling that the writes of one transaction require.

    ``keeps_labels``: rows keep the labels they are stored with besides their new ones.
    """

    def __init__(self, tx: Transaction, labeler: Labeler, rows: RowLabeler, keeps_labels: bool = False) -> None:
        self._keeps_labels = keeps_labels
        self._tx = tx
        self._labeler = labeler
        self._rows = rows
        self._pending: set[str] = set()
        self._named: dict[str, frozenset[str]] = {}

    async def relabel(self, row: Row) -> bool:
        """Label the current version, or the deletion, and all versions before it again.

        Returns whether the visibility of any of them changed.
        """
        changed: list[IndexedRow] = []
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
            if _visibility(previous.row) != _visibility(version):
                changed.append(previous)
        if changed:
            await self._tx.relabel(*changed)
            self._rows.forget(f"{row.type}/{row.id}")
            self._named[f"{row.type}/{row.id}"] = frozenset(named)
        return bool(changed)

    async def after_write(self, indexed: IndexedRow, previous: Row | None) -> None:
        """Note what the write of a row, which followed ``previous``, means for rows that inherit from it."""
        row = indexed.row
        name = f"{row.type}/{row.id}"
        before = await self._rows.lends(previous) if previous is not None else None
        self._rows.forget(name)
        self._pending |= self._rows.pop_waiting(name)
        if (specimens := _named_specimens(indexed)) and await self._rows.has_labels(row):
            self._named[name] = specimens
        if before is not None and before != await self._rows.lends(row):
            await self.relabel_dependents(name)
        else:
            await self._relabel_all(await self._take_named(name), {name})

    async def relabel_pending(self) -> None:
        """Label the rows again that were labeled before a row from which they inherit was written."""
        while self._pending:
            type, _, id = self._pending.pop().partition("/")
            row = await self._tx.read_unfiltered(type, id)
            if row is not None and await self.relabel(row):
                await self.relabel_dependents(f"{type}/{id}")

    async def after_creation(self, name: str) -> None:
        """Label the rows again that already refer to the new row ``Type/id``, unless it is a person of whom nothing is inherited."""
        type, _, id = name.partition("/")
        row = await self._tx.read_unfiltered(type, id) if type == "Practitioner" else None
        if row is None or await self._rows.has_department(row):
            await self.relabel_dependents(name)

    async def relabel_dependents(self, name: str) -> None:
        """Label the rows again that inherit from the row ``Type/id``, directly or through others."""
        await self._relabel_all(await self._dependents(name), {name})

    async def _relabel_all(self, rows: list[Row], done: set[str]) -> None:
        """Label these rows again, and what inherits from those that change; ``done``: rows whose dependents have their turn already."""
        waiting = list(rows)
        while waiting:
            row = waiting.pop()
            name = f"{row.type}/{row.id}"
            # A specimen lends less than it is labeled with, so what it lends may have changed even if its labels have not.
            if (await self.relabel(row) or catalog()[row.type].inherits_from_referrers) and name not in done:
                done.add(name)
                waiting += await self._dependents(name)

    async def _dependents(self, name: str) -> list[Row]:
        """The rows that inherit directly from the row ``Type/id``, as they are now."""
        if not self._labeler.propagates_labels(name.partition("/")[0]):
            return []
        return [*await self._tx.referrers_unfiltered(name), *await self._take_named(name)]

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


def history_of(row: Row | None) -> VersionHistory | None:
    """What the version after this one keeps of a row's versions up to this one; None for None."""
    if row is None:
        return None
    return row.history or VersionHistory(versions.version_digest(row))


def _visibility(row: Row) -> tuple[object, ...]:
    """All that labeling gives to a version."""
    return row.patients, row.class_id, row.release_at, row.labeled_elements, row.guarded_references, row.history


def _named_specimens(indexed: IndexedRow) -> frozenset[str]:
    """The rows that this one names and that take labels from it."""
    type = indexed.row.type
    taken = _taken_through()
    return frozenset(str(entry.value[0]) for entry in indexed.entries if entry.kind == "reference" and (type, entry.param) in taken)


@cache
def _taken_through() -> frozenset[tuple[str, str]]:
    """The reference parameters, as (type, param), through which rows take labels from those that name them."""
    pairs = (param.partition(".") for declared in catalog().values() for param in declared.inherits_from_referrers)
    return frozenset((type, param) for type, _, param in pairs)
