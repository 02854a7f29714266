"""Labels and indexes a row: its patients, visibility classes, release, version digests and index entries."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial
from typing import Any

import msgspec

from fhir_server import jsontext
from fhir_server.access import versions
from fhir_server.access.permissions import INTERNAL
from fhir_server.consent.labeling import Labeler, LabelingResult, LabelSource, patient_ids
from fhir_server.consent.visibility_classes import VisibilityClass, with_target
from fhir_server.search import index
from fhir_server.search.rows import Entry
from fhir_server.store import IndexedRow, LabeledElement, Row, Transaction, VersionDigest

INTERNAL_META = ("security", "tag", "source")
"""Members of meta that say how the server handles the row: only a trusted caller sends or sees them."""


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
        for member in INTERNAL_META:
            if member in value.get("meta", {}):
                elements.append(LabeledElement(("meta", member), await self._class_id(INTERNAL)))
        row = msgspec.structs.replace(
            row, patients=labels.patients, class_id=await self._class_id(labels.key), release_at=labels.release_at,
            labeled_elements=tuple(elements), guarded_references=labels.row_guards(),
        )  # fmt: skip
        if history:
            row = msgspec.structs.replace(row, version_digests=(*history, versions.version_digest(row)))
        entries = await self._with_guarded_classes(_with_class_ids(index.entries(row.type, value, self._base), row), row, labels)
        return IndexedRow(row, (*entries, *versions.last_updated_entries(row), *await self._reference_entries(row, labels)))

    async def _reference_entries(self, row: Row, labels: LabelingResult) -> list[Entry]:
        """The entries by which the server finds rows that refer to others, and the times at which those references changed."""
        internal = await self._class_id(INTERNAL) if labels.label_sources else 0
        entries = [
            versions.last_updated_entry(time, await self._guarded_class_id(labels, classes, targets))
            for (classes, targets), time in versions.guarded_changes(row.version_digests).items()
        ]
        entries += [Entry("_depends", "reference", (target,), (), row.class_id) for target in labels.depends_on]
        entries += [Entry(f"_depends.{param}", "reference", (name,), (), row.class_id) for param, name in labels.owners]
        entries += [Entry("_refers", "reference", (source,), (), internal) for source in labels.label_sources]
        targets = {reference.target for reference in row.guarded_references}
        people = sorted(target for target in targets if target.startswith("RelatedPerson/"))
        return entries + [Entry("_mentions", "reference", (person,), (), row.class_id) for person in people]

    def forget(self, name: str) -> None:
        """Look up the row ``Type/id`` again when it is next needed: it has been written."""
        self._sources.pop(name, None)

    def pop_waiting(self, name: str) -> set[str]:
        """The rows that were labeled in this transaction while ``name``, to which they refer, was not yet written."""
        return self._waiting.pop(name, set())

    async def _with_guarded_classes(self, entries: list[Entry], row: Row, labels: LabelingResult) -> list[Entry]:
        """The entries; those of guarded parts with a class that only callers who see the guarding rows are admitted to.

        A reference that is guarded by its own target needs none: a search by it looks the target up (``search/hidden_references.py``).
        """
        guards = [reference for reference in row.guarded_references if reference.path]
        members = {reference.path[0] for reference in guards}
        found = []
        for entry in entries:
            if entry.path and entry.path[0] in members:
                around = {reference.target for reference in guards if _overlap(reference.path, entry.path)} - {entry.value[0]}
                if around:
                    class_id = await self._guarded_class_id(labels, (entry.class_id,), tuple(sorted(around)))
                    entry = msgspec.structs.replace(entry, class_id=class_id)
            found.append(entry)
        return found

    async def _guarded_class_id(self, labels: LabelingResult, classes: tuple[int, ...], targets: tuple[str, ...]) -> int:
        """The class of a fact that only callers who see parts of these classes and all of these rows may know."""
        keys = await self._tx.classes()
        parts = [VisibilityClass.parse(keys[class_id]) for class_id in classes]
        combined = labels.key.labels.union(*(part.labels for part in parts))
        element = next((part.element.partition("@")[0] for part in parts if part.element), "") or "*"
        for target in targets:
            type, _, id = target.partition("/")
            source = await self._label_source(type, id)
            # Neither release nor the patients of another row can be told from a class.
            if source is None or source.release_at or not set(patient_ids(type, source.body)) <= set(labels.patients):
                return await self._class_id(INTERNAL)
            combined |= source.key.labels
            element = with_target(element, source.key.data, type)
        return await self._class_id(VisibilityClass(labels.key.data, combined, element))

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
                depends_on = tuple(reference.target for reference in row.guarded_references if not reference.path)
                self._sources[name] = LabelSource(VisibilityClass.parse(keys[row.class_id]), row.release_at, parse, depends_on)
        return self._sources[name]


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


def _overlap(path: jsontext.Path, other: jsontext.Path) -> bool:
    length = min(len(path), len(other))
    return path[:length] == other[:length]


def _class_at(path: jsontext.Path, elements: list[LabeledElement], row_class: int) -> int:
    for element in elements:
        length = min(len(path), len(element.path))
        if path[:length] == element.path[:length]:
            return element.class_id
    return row_class
