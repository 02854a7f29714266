"""Planted leaks of the history of a type and of the whole system."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fhir_server.access import visible_changes
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.access.visible_changes import HistoryPeriod, VisibleChanges
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.interactions import history
from fhir_server.store.changes import ChangeKey
from tests.noninterference.planted_leaks import Patch, leak, of_record, unlimited
from tests.noninterference.planted_leaks_interactions import relook_with


async def _stored(view: View, types: Any, visibility: Any) -> list[ChangeKey]:
    visibilities = dict.fromkeys(types, visibility)
    return [change.key for change in await view._snapshot.changes_unfiltered(visibilities, 1000, HistoryPeriod().range(None))]


@leak("R03")
def the_history_of_a_type_is_that_of_the_store(patch: Patch) -> None:
    exact = View.changes

    async def changes(self: View, *given: Any) -> Any:
        other = View(self._snapshot, self.permissions, self.now)
        visibility = await of_record(self)
        other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
        return await exact(other, *given)

    relook_with(patch, "history-type", history.of_type, "changes", changes)


@leak("R03")
def the_deletion_of_a_hidden_row_is_an_entry(patch: Patch) -> None:
    exact = View.changes

    async def changes(self: View, types: Any, *given: Any) -> Any:
        page, whole = await exact(self, types, *given), await unlimited(self)
        listed = {f"{version.type}/{version.id}" for version in page.versions}
        deleted: list[VisibleVersion] = []
        for updated, type, id, number in await _stored(self, types, whole):
            newest = await self._snapshot.newest(type, id, whole)
            if newest is not None and newest.interaction == "delete" and newest.version == number and f"{type}/{id}" not in listed:
                deleted.append(VisibleVersion(type, id, 1, updated, b"", "delete"))
        return page._replace(versions=[*page.versions, *deleted])

    patch.setattr(View, "changes", changes)


@leak("Q08")
def since_asks_when_a_row_was_stored_last(patch: Patch) -> None:
    exact = View.changes

    async def changes(self: View, types: Any, limit: int, period: HistoryPeriod, *given: Any) -> Any:
        if not period.since:
            return await exact(self, types, limit, period, *given)
        page, whole = await exact(self, types, limit, replace(period, since=0), *given), await unlimited(self)
        kept = []
        for version in page.versions:
            newest = await self._snapshot.newest(version.type, version.id, whole)
            if newest is not None and newest.updated >= period.since:
                kept.append(version)
        return page._replace(versions=kept)

    patch.setattr(View, "changes", changes)


@leak("C01")
def the_total_of_a_history_is_that_of_the_store(patch: Patch) -> None:
    exact = View.changes

    async def changes(self: View, types: Any, *given: Any) -> Any:
        page = await exact(self, types, *given)
        return page if page.total is None else page._replace(total=len(await _stored(self, types, await unlimited(self))))

    patch.setattr(View, "changes", changes)


@leak("C03")
def a_page_of_a_history_lacks_what_was_passed_over(patch: Patch) -> None:
    async def page(self: VisibleChanges, limit: int, period: HistoryPeriod, after: Any = None) -> Any:
        key = visible_changes.at_or_after(after.updated, after.type, after.id, ascending=period.ascending) if after else None
        scanned = await self.snapshot.changes_unfiltered(self.visibilities, limit, period.range(key))
        await self._read_newest(scanned)
        entries = [await self._entry(change, period, after) for change in scanned]
        return [entry for entry in entries if entry is not None]

    patch.setattr(VisibleChanges, "page", page)


@leak("R02")
def versions_of_another_patient_are_counted(patch: Patch) -> None:
    patch.setattr(Permissions, "owners", lambda self, type: None)
