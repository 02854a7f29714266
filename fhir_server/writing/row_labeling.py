"""Labels and indexes a row: its patients, visibility classes, release, version digests and index entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from typing import Any, Final

import msgspec

from fhir_server import jsontext
from fhir_server.access import versions
from fhir_server.access.app_state_owner import OWNER_PARAM
from fhir_server.access.permissions import INTERNAL
from fhir_server.consent.labeling import Labeler, LabelingResult, LabelSource, patient_ids
from fhir_server.consent.security_labels import REPORTED_BY, is_restraint
from fhir_server.consent.visibility_classes import PHYHOLD, VisibilityClass
from fhir_server.search import index
from fhir_server.search.rows import Entry
from fhir_server.store import IndexedRow, LabeledElement, Row, Transaction, VersionDigest
from fhir_server.writing.meta import INTERNAL_META

_RESTRAINT: Final = frozenset({PHYHOLD})


class RowLabeler:
    """Labels rows within one transaction, and remembers which of them refer to rows that are not yet written.

    ``base``: the FHIR base URL, for absolute references in index entries.
    """

    def __init__(self, tx: Transaction, labeler: Labeler, base: str) -> None:
        self._tx = tx
        self._labeler = labeler
        self._base = base
        self._sources: dict[str, LabelSource | None] = {}
        self._class_ids: dict[VisibilityClass, int] = {}
        self._waiting: dict[str, set[str]] = {}

    async def label(self, row: Row, value: dict[str, Any], history: tuple[VersionDigest, ...]) -> IndexedRow:
        """The row, whose parsed body is ``value``, with its labels and index entries; ``history``: the versions before it."""
        name = f"{row.type}/{row.id}"

        async def find_source(type: str, id: str) -> LabelSource | None:
            source = await self._label_source(type, id)
            if source is None:
                self._waiting.setdefault(f"{type}/{id}", set()).add(name)
            return source

        labels = await self._labeler.label(row.type, value, find_source)
        elements = [LabeledElement(path, await self._class_id(key)) for path, key in labels.labeled_elements]
        for path, key in _meta_classes(value.get("meta", {}), labels.key):
            elements.append(LabeledElement(path, await self._class_id(key)))
        row = msgspec.structs.replace(
            row, patients=labels.patients, class_id=await self._class_id(labels.key), release_at=labels.release_at,
            labeled_elements=tuple(elements), guarded_references=labels.guarded_references,
        )  # fmt: skip
        if history:
            row = msgspec.structs.replace(row, version_digests=(*history, versions.version_digest(row)))
        entries = _with_class_ids(index.entries(row.type, value, self._base), row)
        return IndexedRow(row, (*entries, *versions.last_updated_entries(row), *await self._reference_entries(row, value, labels)))

    async def _reference_entries(self, row: Row, value: dict[str, Any], labels: LabelingResult) -> list[Entry]:
        """The entries by which the server finds rows that refer to others, and the times at which those references changed."""
        internal = await self._class_id(INTERNAL) if labels.label_sources else 0
        changes = versions.reference_changes(row.version_digests).items()
        entries = [
            versions.last_updated_entry(time, await self._class_id(await self._class_of_both(labels, name))) for name, time in changes
        ]
        entries += [Entry("_refers", "reference", (source,), (), internal) for source in labels.label_sources]
        targets = {reference.target for reference in labels.guarded_references}
        people = sorted(target for target in targets if target.startswith("RelatedPerson/"))
        if labels.key.data == "app-state":
            entries.append(Entry(OWNER_PARAM, "reference", (value["meta"]["source"],), (), row.class_id))
        return entries + [Entry("_mentions", "reference", (person,), (), row.class_id) for person in people]

    def forget(self, name: str) -> None:
        """Look up the row ``Type/id`` again when it is next needed: it has been written."""
        self._sources.pop(name, None)

    def pop_waiting(self, name: str) -> set[str]:
        """The rows that were labeled in this transaction while ``name``, to which they refer, was not yet written."""
        return self._waiting.pop(name, set())

    async def _class_of_both(self, labels: LabelingResult, name: str) -> VisibilityClass:
        """The class of a fact that only callers who see both the row and another row, to which it refers, may know."""
        type, _, id = name.partition("/")
        source = await self._label_source(type, id)
        if source is None or source.release_at or not set(patient_ids(type, source.body)) <= set(labels.patients):
            return INTERNAL
        return VisibilityClass(labels.key.data, labels.key.labels | source.key.labels, f"@{source.key.data}")

    async def _class_id(self, key: VisibilityClass) -> int:
        class_id = self._class_ids.get(key)
        if class_id is None:
            class_id = self._class_ids[key] = await self._tx.intern_class(key.text())
        return class_id

    async def _label_source(self, type: str, id: str) -> LabelSource | None:
        """What a row propagates to rows that refer to it: its class, its release, and its body for its department."""
        name = f"{type}/{id}"
        if name not in self._sources:
            row = await self._tx.read_unfiltered(type, id)
            if row is None or row.interaction == "delete":
                self._sources[name] = None
            else:
                keys = await self._tx.classes()
                parse = cache(partial(jsontext.parse, row.body))
                self._sources[name] = LabelSource(VisibilityClass.parse(keys[row.class_id]), row.release_at, parse)
        return self._sources[name]


def _meta_classes(meta: Mapping[str, Any], row: VisibilityClass) -> Iterator[tuple[jsontext.Path, VisibilityClass]]:
    """The classes of the members of a row's meta that not every reader of the row may see.

    A clinician's restraint is seen by those who see restrained rows, the mark of who reported a row by all who see it.
    """
    for member in INTERNAL_META:
        items = meta.get(member, ())
        classes = [_item_class(member, item, row) for item in items] if isinstance(items, list) else []
        if items and all(key == INTERNAL for key in classes):
            yield ("meta", member), INTERNAL
        else:
            yield from ((("meta", member, number), key) for number, key in enumerate(classes) if key is not None)


def _item_class(member: str, item: Mapping[str, Any], row: VisibilityClass) -> VisibilityClass | None:
    if member == "tag" and item.get("system") == REPORTED_BY:
        return None
    if member == "security" and is_restraint(item):
        return VisibilityClass(row.data, row.labels | _RESTRAINT)
    return INTERNAL


def _with_class_ids(entries: Iterable[Entry], row: Row) -> list[Entry]:
    """Each entry with the class of the element of the row that it was extracted from."""
    elements = sorted(row.labeled_elements, key=lambda element: -len(element.path))
    members = {element.path[0] for element in elements}
    return [
        Entry(
            entry.param, entry.kind, entry.value, entry.path,
            _class_at(entry.path, elements, row.class_id) if not entry.path or entry.path[0] in members else row.class_id,
        )
        for entry in entries
    ]  # fmt: skip


def _class_at(path: jsontext.Path, elements: list[LabeledElement], row_class: int) -> int:
    for element in elements:
        length = min(len(path), len(element.path))
        if path[:length] == element.path[:length]:
            return element.class_id
    return row_class
