"""Propagates labels: rows that inherit from a changed row are labeled again, in all their versions.

Old versions inherit from what is current now: a label that is added later holds for the whole history.
"""

from __future__ import annotations

import msgspec

from fhir_server import jsontext
from fhir_server.access import versions
from fhir_server.consent.labeling import Labeler
from fhir_server.store import IndexedRow, Row, Transaction, VersionDigest
from fhir_server.writing.row_labeling import RowLabeler

# Rows of these types propagate their department to rows that refer to them, regardless of their own class.
_DEPARTMENTS = frozenset({"Location", "HealthcareService", "Organization", "PractitionerRole"})


class Propagation:
    """The relabeling that the writes of one transaction require."""

    def __init__(self, tx: Transaction, labeler: Labeler, rows: RowLabeler) -> None:
        self._tx = tx
        self._labeler = labeler
        self._rows = rows
        self._pending: set[str] = set()

    async def relabel(self, row: Row) -> bool:
        """Label the current version, or the deletion, and all versions before it again.

        Returns whether the visibility of any of them changed.
        """
        changed = False
        previous: IndexedRow | None = None
        for version in (*(await self._tx.read_past_unfiltered(row.type, row.id) if row.version_digests else ()), row):
            previous = await self._relabeled(version, previous)
            if _visibility(previous.row) != _visibility(version):
                await self._tx.relabel(previous)
                changed = True
        if changed:
            self._rows.forget(f"{row.type}/{row.id}")
        return changed

    async def after_write(self, row: Row, previous: Row | None) -> None:
        """Note what the write of ``row``, which followed ``previous``, means for rows that inherit from it."""
        name = f"{row.type}/{row.id}"
        self._rows.forget(name)
        self._pending |= self._rows.pop_waiting(name)
        if previous is not None and _inherited(previous) != _inherited(row):
            await self.relabel_dependents(name)

    async def relabel_pending(self) -> None:
        """Label the rows again that were labeled before a row from which they inherit was written."""
        while self._pending:
            type, _, id = self._pending.pop().partition("/")
            row = await self._tx.read_unfiltered(type, id)
            if row is not None and await self.relabel(row):
                await self.relabel_dependents(f"{type}/{id}")

    async def relabel_dependents(self, name: str) -> None:
        """Label the rows again that inherit from the row ``Type/id``, directly or through others."""
        waiting, done = [name], {name}
        while waiting:
            source = waiting.pop()
            if not self._labeler.propagates_labels(source.partition("/")[0]):
                continue
            for row in await self._tx.referrers_unfiltered(source):
                dependent = f"{row.type}/{row.id}"
                if await self.relabel(row) and dependent not in done:
                    done.add(dependent)
                    waiting.append(dependent)

    async def _relabeled(self, version: Row, previous: IndexedRow | None) -> IndexedRow:
        """A stored version as it would be written now, after ``previous``; a deletion has the labels of the version it ended."""
        history = history_of(previous.row if previous else None)
        if previous is None or version.interaction != "delete":
            return await self._rows.label(version, jsontext.parse(version.body), history)
        ended = previous.row
        deletion = msgspec.structs.replace(version, patients=ended.patients, class_id=ended.class_id, release_at=ended.release_at)
        digests = (*history, versions.version_digest(deletion))
        return IndexedRow(msgspec.structs.replace(deletion, version_digests=digests), previous.entries)


def history_of(row: Row | None) -> tuple[VersionDigest, ...]:
    """The digests of a row's versions up to and including this one; none for None."""
    if row is None:
        return ()
    return row.version_digests or (versions.version_digest(row),)


def _visibility(row: Row) -> tuple[object, ...]:
    """All that labeling gives to a version."""
    return row.patients, row.class_id, row.release_at, row.labeled_elements, row.guarded_references, row.version_digests


def _inherited(row: Row) -> tuple[object, ...]:
    """What rows that refer to this one inherit from it."""
    body = row.body if row.type in _DEPARTMENTS else row.interaction == "delete"
    depends_on = tuple(reference.target for reference in row.guarded_references if not reference.path)
    return (row.class_id, row.release_at, body, depends_on)
