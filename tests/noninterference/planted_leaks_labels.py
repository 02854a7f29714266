"""Planted leaks of labels: what is removed from a row, what a row inherits, and what stays after its source is gone."""

from __future__ import annotations

from typing import Any

import msgspec

from fhir_server.access import versions, visible_parts
from fhir_server.consent import security_labels
from fhir_server.consent.visibility_classes import MIXED, VisibilityClass
from fhir_server.store import IndexedRow
from fhir_server.writing import row_labeling
from fhir_server.writing.propagation import Propagation
from fhir_server.writing.row_labeling import RowLabeler
from tests.noninterference.planted_leaks import Leak, Patch, leak


def _leaving(patch: Patch, *members: str) -> None:
    """Keep the hidden paths that begin with one of these members."""
    exact = visible_parts.paths_to_remove
    patch.setattr(visible_parts, "paths_to_remove", lambda row, *what: [path for path in exact(row, *what) if path[0] not in members])


@leak("R09")
def the_narrative_is_left_in(patch: Patch) -> None:
    _leaving(patch, "text")


@leak("R10")
def notes_are_left_in(patch: Patch) -> None:
    _leaving(patch, "note", "comment", "description")


@leak("R08")
def hidden_elements_of_contained_rows_are_left_in(patch: Patch) -> None:
    _leaving(patch, "contained")


@leak("M02")
def other_participants_are_left_in(patch: Patch) -> None:
    _leaving(patch, "participant")


@leak("S14")
def values_of_a_labelled_component_are_left_in(patch: Patch) -> None:
    exact = visible_parts.paths_to_remove
    patch.setattr(visible_parts, "paths_to_remove", lambda row, *what: [path for path in exact(row, *what) if row.type != "Observation"])


@leak("R02")
def versions_from_before_the_release_are_counted(patch: Patch) -> None:
    exact = versions.visible_version
    patch.setattr(versions, "visible_version", lambda history, sight: exact(history, sight._replace(released=None)))


@leak("Q13", stored=True)
def changes_of_hidden_elements_are_changes_of_the_row(patch: Patch) -> None:
    exact = versions.last_updated_entries

    def entries(row: Any) -> Any:
        return (*exact(row), versions.last_updated_entry(row.updated, row.class_id))

    patch.setattr(versions, "last_updated_entries", entries)


@leak("Q09", stored=True)
def labels_and_tags_are_elements_like_others(patch: Patch) -> None:
    patch.setattr(row_labeling, "INTERNAL_META", ())


def _relabeled(patch: Patch, change: Any) -> None:
    """Change each row after it was labeled; ``change`` returns the row and the name of another class for it, or None."""
    exact = RowLabeler.label

    async def label(self: Any, row: Any, value: Any, history: Any, **stored: Any) -> IndexedRow:
        indexed = await exact(self, row, value, history, **stored)
        key = VisibilityClass.parse((await self._tx.classes())[indexed.row.class_id])
        kept, other = change(indexed.row, key)
        if other is not None:
            number = await self._tx.intern_class(other.text())
            entries = tuple(_with_class(entry, kept.class_id, number) for entry in indexed.entries)
            return IndexedRow(msgspec.structs.replace(kept, class_id=number), entries)
        return IndexedRow(kept, indexed.entries)

    patch.setattr(RowLabeler, "label", label)


def _with_class(entry: Any, old: int, new: int) -> Any:
    return msgspec.structs.replace(entry, class_id=new) if entry.class_id == old else entry


@leak("R07", stored=True)
def a_file_does_not_wait_for_the_release_of_its_document(patch: Patch) -> None:
    _relabeled(patch, lambda row, key: (msgspec.structs.replace(row, release_at=0) if row.type == "Binary" else row, None))


@leak("M03", stored=True)
def rows_of_three_patients_are_not_mixed(patch: Patch) -> None:
    def change(row: Any, key: VisibilityClass) -> Any:
        other = VisibilityClass(key.data, key.labels - {MIXED}, key.element)
        return row, other if len(row.patients) > 2 else None

    _relabeled(patch, change)


@leak("T14", stored=True)
def the_release_of_a_row_is_not_kept(patch: Patch) -> None:
    patch.setattr(security_labels, "release_at", lambda resource, zone: 0)


@leak("W12", stored=True)
def a_clinician_s_hold_is_not_read(patch: Patch) -> None:
    kept = {code: label for code, label in security_labels._ACT_CODES.items() if code not in ("TBOO", "NOPAT")}
    patch.setattr(security_labels, "_ACT_CODES", kept)


@leak("T12", stored=True)
def a_row_created_again_relabels_nothing(patch: Patch) -> None:
    exact = Propagation.after_write

    async def after_write(self: Any, written: Any, previous: Any) -> None:
        if previous is None or previous.interaction != "delete":
            await exact(self, written, previous)
        else:
            self._rows.forget(f"{previous.type}/{previous.id}")

    patch.setattr(Propagation, "after_write", after_write)


# Faults in what stays after a source is gone; the test of hidden writes must find each.


LENDING_FAULTS: list[Leak] = []


def _lending(plant: Any) -> Any:
    LENDING_FAULTS.append(Leak(plant.__name__.replace("_", " "), "T12", plant, stored=True))
    return plant


@_lending
def a_deleted_row_lends_nothing(patch: Patch) -> None:
    exact = RowLabeler._label_source

    async def source(self: Any, type: str, id: str) -> Any:
        row = await self._tx.read_unfiltered(type, id)
        return None if row is not None and row.interaction == "delete" else await exact(self, type, id)

    patch.setattr(RowLabeler, "_label_source", source)


@_lending
def only_the_newest_version_lends(patch: Patch) -> None:
    patch.setattr(row_labeling, "lent_class", lambda versions: tuple(versions[-1])[:2])


@_lending
def a_department_is_what_its_newest_version_says(patch: Patch) -> None:
    async def bodies(self: Any) -> list[Any]:
        return [self.body]

    patch.setattr(row_labeling.LabelSource, "bodies", bodies)


@_lending
def labels_of_a_changed_row_go_one_step(patch: Patch) -> None:
    async def dependents(self: Any, name: str) -> None:
        for row in await self._tx.referrers_unfiltered(name):
            await self.relabel(row)

    patch.setattr(Propagation, "relabel_dependents", dependents)


@_lending
def a_changed_row_relabels_nothing(patch: Patch) -> None:
    async def dependents(self: Any, name: str) -> None:
        pass

    patch.setattr(Propagation, "relabel_dependents", dependents)
