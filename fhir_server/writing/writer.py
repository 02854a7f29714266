"""Writes the resources of one transaction: versions, labels, index entries, and what a change means for other rows.

Nothing here decides whether the caller may write; the interactions do, through their View.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fhir_server import jsontext
from fhir_server.access import versions
from fhir_server.access.pending_labels import PendingRows
from fhir_server.consent.labeling import Labeler
from fhir_server.store import IndexedRow, Row, Transaction, version_summary
from fhir_server.writing.draft import Draft, draft_of
from fhir_server.writing.meta import INTERNAL_META, merged_meta, meta_of
from fhir_server.writing.pending_relabeling import Backlog
from fhir_server.writing.propagation import Propagation, history_of
from fhir_server.writing.row_labeling import RowLabeler
from fhir_server.writing.search_parameters import TYPE as SEARCH_PARAMETER
from fhir_server.writing.search_parameters import SearchParameterFollower
from fhir_server.writing.write_times import time_after

# Rows that propagate labels are stored before rows that inherit them, so that most are labeled correctly at once.
_LABEL_SOURCES = (
    "Organization", "Location", "HealthcareService", "Practitioner", "PractitionerRole", "Patient", "RelatedPerson", "Substance",
    "Medication", "Device", "Schedule", "Slot", "Appointment", "CareTeam", "EpisodeOfCare", "Encounter", "ServiceRequest", "Condition",
    "Specimen", "Observation",
)  # fmt: skip
# Rows of these types decide who may see the rows of a patient; a change of one ends all permissions that rest on it.
_FACTS = frozenset({"Patient", "RelatedPerson", "Consent"})


def rank(type: str) -> int:
    """The position of a type in the order of storing."""
    return _LABEL_SOURCES.index(type) if type in _LABEL_SOURCES else len(_LABEL_SOURCES)


class ResourceWriter:
    """Writes resources in one transaction.

    ``base``: the FHIR base URL; ``now``: the instant of the request (microseconds).  ``keeps_labels``: what is labeled again keeps the
    labels it is stored with.  ``pending``: the marks of rows whose labels are not up to date, as this transaction sees them.
    ``parameters``: follows the writes of SearchParameters.
    """

    def __init__(
        self,
        tx: Transaction,
        labeler: Labeler,
        base: str,
        now: int,
        keeps_labels: bool = False,
        *,
        pending: Iterable[PendingRows] = (),
        parameters: SearchParameterFollower | None = None,
    ) -> None:
        self._tx = tx
        self._now = now
        self._parameters = parameters or SearchParameterFollower(tx)
        self._rows = RowLabeler(tx, labeler, base, self._parameters)
        self._propagation = Propagation(tx, labeler, self._rows, Backlog(tx, labeler.propagates_labels, pending), keeps_labels)

    async def write(self, draft: Draft, id: str, *, takes_labels: bool, previous: Row | None, source: str = "") -> Row:
        """Write the next version of ``draft.type/id``; ``previous`` is its current row or its deletion.

        ``takes_labels``: the caller may say what the draft's meta says; otherwise its labels, tags and source are not taken.
        Those of the version before it stay, and security labels outlive a deletion; a new row has ``source`` as its
        ``meta.source``.
        """
        sent = {name: text for name, text in meta_of(draft.parts).items() if takes_labels or name not in INTERNAL_META}
        meta = merged_meta(sent, await self._present_meta(previous)) | ({"source": json.dumps(source).encode()} if source else {})
        return await self._put(draft, id, meta, previous)

    async def replace_meta(self, current: Row, meta: Mapping[str, bytes]) -> Row:
        """Write a next version that differs from the ``current`` one in the members of its meta only: these are all of them."""
        return await self._put(draft_of(current), current.id, meta, current)

    async def _put(self, draft: Draft, id: str, meta: Mapping[str, bytes], previous: Row | None) -> Row:
        created = previous is None or previous.interaction == "delete"
        version, updated = (previous.version + 1, time_after(previous.updated, self._now)) if previous else (1, self._now)
        body, value = _with_id_and_meta(draft, id, versions.version_meta(version, updated), meta)
        row = Row(draft.type, id, version, updated, (), 0, 0, body, interaction="create" if created else "update")
        if row.type == SEARCH_PARAMETER:
            await self._parameters.follow(id, value)
        indexed = await self._rows.label(row, value, history_of(previous))
        await self._tx.put(indexed)
        await self._after_write(indexed, previous)
        return indexed.row

    async def _present_meta(self, previous: Row | None) -> dict[str, bytes]:
        """What an update keeps of the meta before it: all of it, and after a deletion the security labels."""
        if previous is None or previous.body:
            return meta_of(jsontext.members(previous.body)) if previous else {}
        (ended,) = await self._tx.read_past_unfiltered(previous.type, previous.id, previous.version - 1, previous.version - 1)
        return {name: text for name, text in meta_of(jsontext.members(ended.body)).items() if name == "security"}

    async def delete(self, current: Row) -> Row:
        """Delete the current version; references to it stay in their rows and are no longer shown."""
        deletion = msgspec.structs.replace(
            current, version=current.version + 1, updated=time_after(current.updated, self._now), body=b"", labeled_elements=(),
            guarded_references=(), history=None, interaction="delete",
        )  # fmt: skip
        history = version_summary.following(history_of(current), versions.version_digest(deletion))
        deletion = msgspec.structs.replace(deletion, history=history)
        await self._tx.delete(deletion)
        if current.type == SEARCH_PARAMETER:
            await self._parameters.follow(current.id, None)
        await self._after_write(IndexedRow(deletion), current)
        return deletion

    async def relabel_with_dependents(self, row: Row, *, reindexes: bool = False) -> bool:
        """Label a row and its past versions again, and the rows that inherit from it; whether its visibility changed.

        ``reindexes``: store the row's index entries again, whether its visibility changed or not.
        """
        changed = await self._propagation.relabel(row, reindexes=reindexes)
        if changed:
            await self._propagation.relabel_dependents(f"{row.type}/{row.id}")
        return changed

    async def take_definition(self, row: Row) -> None:
        """Take what a stored SearchParameter adds, if it was stored by a version of the server that did not use them."""
        await self._parameters.follow(row.id, jsontext.parse(row.body))

    async def relabel_pending(self) -> None:
        """Label the rows again that were labeled before a row from which they inherit was written; await this last."""
        await self._propagation.relabel_pending()

    async def relabel_referrers(self, name: str) -> None:
        """Label the rows again that already refer to the new row ``Type/id``; needed where callers choose ids."""
        await self._propagation.after_creation(name)

    async def _after_write(self, indexed: IndexedRow, previous: Row | None) -> None:
        row = indexed.row
        if row.type in _FACTS and (previous is not None or row.type != "Patient"):
            for patient in {*row.patients, *(previous.patients if previous else ())}:
                await self._tx.advance_epoch(patient)
        await self._propagation.after_write(indexed, previous)


def _with_id_and_meta(draft: Draft, id: str, version_meta: bytes, meta: Mapping[str, bytes]) -> tuple[bytes, dict[str, Any]]:
    """The body to store, and its parsed value."""
    head = {"resourceType": b'"%s"' % draft.type.encode(), "id": b'"%s"' % id.encode(), "meta": b"{" + version_meta}
    rest = {name: text for name, text in draft.parts.items() if name not in head}
    head["meta"] += b"," + jsontext.join_members(meta)[1:] if meta else b"}"
    body = jsontext.join_members(head | rest)
    return body, {**draft.value, "id": id, "meta": {name: jsontext.parse(text) for name, text in meta.items()}}
