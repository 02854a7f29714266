"""The only door to the store: a snapshot seen through a plan, at one instant.

Every interaction gets a View and nothing else, so no answer can be computed from what its caller may not see.
A row leaves as :class:`VisibleVersion`: the body less the parts whose class the plan does not admit and less references
to rows it does not show, with the version number and time the caller can know of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from fhir_server import jsontext
from fhir_server.access import versions
from fhir_server.access.permissions import Permissions
from fhir_server.errors import Problem
from fhir_server.search import hidden_references, match
from fhir_server.search.filters import EVERYTHING, Filter
from fhir_server.search.visibility import Position, SearchableRow, SortKey, Visibility
from fhir_server.store import Row, Snapshot


class VisibleVersion(msgspec.Struct, frozen=True):
    """A version of a resource as one caller sees it.  ``updated`` in microseconds; ``body`` is JSON text."""

    type: str
    id: str
    version: int
    updated: int
    body: bytes
    interaction: str = "create"


class View:
    """What one caller may see, at one instant, in one consistent reading of the store."""

    def __init__(self, snapshot: Snapshot, permissions: Permissions, now: int) -> None:
        self._snapshot = snapshot
        self.permissions = permissions
        self.now = now

    async def read(self, type: str, id: str) -> VisibleVersion:
        """The current version.  Raises Problem ``gone`` if its deletion is in view, else ``not_found``."""
        self.permissions.require(type, "r")
        row = await self._snapshot.read(type, id, self._visibility(type, "r"))
        if row is None:
            raise await self._absent(type, id)
        return (await self._visible_versions((row,)))[0]

    async def read_for_write(self, type: str, id: str, interactions: str = "cruds") -> VisibleVersion | None:
        """The current version if it is in view under a scope for one of these interactions: for writes, which need no read scope."""
        row = await self._snapshot.read(type, id, self._visibility(type, interactions))
        return (await self._visible_versions((row,)))[0] if row else None

    async def visible_after_write(self, row: Row) -> VisibleVersion | None:
        """As :meth:`look`, of a version that was written just now and is at hand."""
        visibility = self._visibility(row.type, "cruds")
        plain = tuple(clause for clause in visibility.clauses if clause.where is EVERYTHING)
        if match.is_visible(Visibility(plain, visibility.now), SearchableRow(row.type, row.id, row.patients, row.class_id, row.release_at)):
            return (await self._visible_versions((row,)))[0]
        return await self.read_for_write(row.type, row.id)

    async def version(self, type: str, id: str, version: str) -> VisibleVersion:
        """A version by the number this caller knows it by.  Raises Problem ``not_found`` or ``gone``."""
        for seen in await self.history(type, id):
            if str(seen.version) == version:
                if seen.interaction == "delete":
                    raise Problem("gone", f"{type}/{id} version {version} is a deletion.")
                return seen
        raise not_found(type, id)

    async def history(self, type: str, id: str) -> list[VisibleVersion]:
        """All versions in view, oldest first.  Raises Problem ``not_found`` if there are none."""
        self.permissions.require(type, "r")
        rows = await self._snapshot.versions(type, id, self._visibility(type, "r"))
        if not rows:
            raise not_found(type, id)
        seen = await self._visible_versions(rows)
        return seen if self.permissions.everything else _renumbered(seen)

    async def find(
        self, type: str, where: Filter, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> tuple[list[VisibleVersion], Position | None]:
        """A page of what meets ``where``, and where the next one starts."""
        found, end, _ = await self.find_counted(type, where, sort=sort, limit=limit, after=after)
        return found, end

    async def find_counted(
        self, type: str, where: Filter, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> tuple[list[VisibleVersion], Position | None, int | None]:
        """As :meth:`find`, and what :meth:`count` would say, if the store knows that without being asked again."""
        self.permissions.require(type, "s")
        where = await self._require_answerable(type, where, sort)
        page = await self._snapshot.find(type, where, self._visibility(type, "s"), sort=sort, limit=limit, after=after)
        return await self._visible_versions(page.rows), page.next, page.total

    async def count(self, type: str, where: Filter) -> int:
        """How many rows in view meet ``where``."""
        self.permissions.require(type, "s")
        return await self._snapshot.count(type, await self._require_answerable(type, where), self._visibility(type, "s"))

    async def find_readable(
        self, type: str, where: Filter, *, limit: int, after: Position | None
    ) -> tuple[list[VisibleVersion], Position | None]:
        """As :meth:`find`, under a scope to read: for a record fetched whole rather than searched."""
        self.permissions.require(type, "r")
        page = await self._snapshot.find(type, where, self._visibility(type, "r"), limit=limit, after=after)
        return await self._visible_versions(page.rows), page.next

    async def find_included(self, type: str, where: Filter, limit: int) -> list[VisibleVersion]:
        """Rows of ``type`` that another answer brings along (includes); none if no scope covers the type."""
        if not self.permissions.scopes(type, "r") and not self.permissions.scopes(type, "s"):
            return []
        where = await self._require_answerable(type, where)
        page = await self._snapshot.find(type, where, self._visibility(type, "rs"), limit=limit)
        return await self._visible_versions(page.rows)

    async def types_of_unfiltered(self, patient: str) -> frozenset[str]:
        """The types of which this patient has rows, in view or not: only to spare questions that nothing can answer."""
        return await self._snapshot.types_of_unfiltered(frozenset({patient}))

    async def visible_targets(self, targets: Iterable[str]) -> frozenset[str]:
        """Those of these ``Type/id`` that are in view."""
        return await self._snapshot.visible(targets, lambda type: self._visibility(type, "rs"))

    async def _require_answerable(self, type: str, where: Filter, sort: tuple[SortKey, ...] = ()) -> Filter:
        """The condition as this caller may ask it: references lead only to rows in view."""
        if self.permissions.everything:
            return where
        hidden_references.require_answerable(type, where, sort)
        own = {f"Patient/{patient}" for patient in self.permissions.patients or ()}
        asked = set(hidden_references.targets(where))
        if asked <= own:
            return where
        return hidden_references.limit_to_visible(where, await self.visible_targets(asked))

    def _visibility(self, type: str, interactions: str) -> Visibility:
        return self.permissions.visibility(type, self.now, interactions)

    async def _absent(self, type: str, id: str) -> Problem:
        versions = await self._snapshot.versions(type, id, self._visibility(type, "r"))
        if versions and versions[-1].interaction == "delete":
            return Problem("gone", f"{type}/{id} has been deleted.")
        return not_found(type, id)

    async def _visible_versions(self, rows: Sequence[Row]) -> list[VisibleVersion]:
        if self.permissions.everything:
            return [VisibleVersion(row.type, row.id, row.version, row.updated, row.body, row.interaction) for row in rows]
        targets = {guarded_reference.target for row in rows for guarded_reference in row.guarded_references}
        targets |= {target for row in rows for version_digest in row.version_digests for _, target in version_digest.guarded_references}
        shown = await self.visible_targets(targets) if targets else frozenset()
        admitted = {type: self.permissions.admitted_classes(type) for type in {row.type for row in rows}}
        return [self._without_hidden_parts(row, admitted[row.type], shown) for row in rows]

    async def hidden_paths(self, row: Row) -> list[jsontext.Path]:
        """The paths of a row's parts that this caller is not shown; for a write that replaces the row."""
        shown = await self.visible_targets(guarded_reference.target for guarded_reference in row.guarded_references)
        return _paths_to_remove(row, self.permissions.admitted_classes(row.type), shown)

    def _without_hidden_parts(self, row: Row, admitted: frozenset[int], shown: frozenset[str]) -> VisibleVersion:
        version, updated, body = row.version, row.updated, row.body
        if body and (row.labeled_elements or row.guarded_references) and (cut := _paths_to_remove(row, admitted, shown)):
            body = jsontext.remove_paths(body, cut)
        if row.version_digests:
            released = self.now if self.permissions.released_only else None
            version, updated = versions.visible_version(row.version_digests, admitted, shown, released)
            if body and (version, updated) != (row.version, row.updated):
                body = versions.with_version_meta(body, version, updated)
        return VisibleVersion(row.type, row.id, version, updated, body, row.interaction)


def _paths_to_remove(row: Row, admitted: frozenset[int], shown: frozenset[str]) -> list[jsontext.Path]:
    """The paths of the parts of a row whose class is not admitted, and of its references to what is not shown."""
    cut = [labeled_element.path for labeled_element in row.labeled_elements if labeled_element.class_id not in admitted]
    return cut + [guarded_reference.path for guarded_reference in row.guarded_references if guarded_reference.target not in shown]


def not_found(type: str, id: str) -> Problem:
    """The one answer for what never was, what is withheld, and what was deleted out of view."""
    return Problem("not_found", f"{type}/{id} is not known.")


def _renumbered(versions: list[VisibleVersion]) -> list[VisibleVersion]:
    """Versions that look alike to the caller are one version, the first of them; the first in view is the one that created it."""
    kept: list[VisibleVersion] = []
    for seen in versions:
        if kept and seen.version == kept[-1].version:
            continue
        if seen.interaction != "delete":
            created = not kept or kept[-1].interaction == "delete"
            seen = msgspec.structs.replace(seen, interaction="create" if created else "update")
        kept.append(seen)
    return kept
