"""The only door to the store: a snapshot seen through a plan, at one instant.

Every interaction gets a View and nothing else, so no answer can be computed from what its caller may not see.
A row leaves as :class:`Seen`: the body less the parts whose class the plan does not admit and less references
to rows it does not show, with the version number and time the caller can know of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from fhir_server import jsontext
from fhir_server.access import versions
from fhir_server.access.permissions import Plan
from fhir_server.errors import Problem
from fhir_server.search import hidden_references, match
from fhir_server.search.filters import EVERYTHING, Filter
from fhir_server.search.visibility import Indexed, Position, Sight, SortKey
from fhir_server.store import Row, Snapshot


class Seen(msgspec.Struct, frozen=True):
    """A version of a resource as one caller sees it.  ``updated`` in microseconds; ``body`` is JSON text."""

    type: str
    id: str
    version: int
    updated: int
    body: bytes
    interaction: str = "create"


class View:
    """What one caller may see, at one instant, in one consistent reading of the store."""

    def __init__(self, snapshot: Snapshot, plan: Plan, now: int) -> None:
        self._snapshot = snapshot
        self.plan = plan
        self.now = now

    async def read(self, type: str, id: str) -> Seen:
        """The current version.  Raises Problem ``gone`` if its deletion is in view, else ``not_found``."""
        self.plan.require(type, "r")
        row = await self._snapshot.read(type, id, self._sight(type, "r"))
        if row is None:
            raise await self._absent(type, id)
        return (await self._seen((row,)))[0]

    async def look(self, type: str, id: str, letters: str = "cruds") -> Seen | None:
        """The current version if it is in view under a scope for one of these interactions: for writes, which need no read scope."""
        row = await self._snapshot.read(type, id, self._sight(type, letters))
        return (await self._seen((row,)))[0] if row else None

    async def wrote(self, row: Row) -> Seen | None:
        """As :meth:`look`, of a version that was written just now and is at hand."""
        sight = self._sight(row.type, "cruds")
        plain = tuple(window for window in sight.windows if window.where is EVERYTHING)
        if match.admits(Sight(plain, sight.now), Indexed(row.type, row.id, row.patients, row.vclass, row.release_at)):
            return (await self._seen((row,)))[0]
        return await self.look(row.type, row.id)

    async def version(self, type: str, id: str, version: str) -> Seen:
        """A version by the number this caller knows it by.  Raises Problem ``not_found`` or ``gone``."""
        for seen in await self.history(type, id):
            if str(seen.version) == version:
                if seen.interaction == "delete":
                    raise Problem("gone", f"{type}/{id} version {version} is a deletion.")
                return seen
        raise not_found(type, id)

    async def history(self, type: str, id: str) -> list[Seen]:
        """All versions in view, oldest first.  Raises Problem ``not_found`` if there are none."""
        self.plan.require(type, "r")
        rows = await self._snapshot.versions(type, id, self._sight(type, "r"))
        if not rows:
            raise not_found(type, id)
        seen = await self._seen(rows)
        return seen if self.plan.everything else _renumbered(seen)

    async def find(
        self, type: str, where: Filter, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> tuple[list[Seen], Position | None]:
        """A page of what meets ``where``, and where the next one starts."""
        found, end, _ = await self.find_counted(type, where, sort=sort, limit=limit, after=after)
        return found, end

    async def find_counted(
        self, type: str, where: Filter, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> tuple[list[Seen], Position | None, int | None]:
        """As :meth:`find`, and what :meth:`count` would say, if the store knows that without being asked again."""
        self.plan.require(type, "s")
        where = await self._askable(type, where, sort)
        page = await self._snapshot.find(type, where, self._sight(type, "s"), sort=sort, limit=limit, after=after)
        return await self._seen(page.rows), page.next, page.total

    async def count(self, type: str, where: Filter) -> int:
        """How many rows in view meet ``where``."""
        self.plan.require(type, "s")
        return await self._snapshot.count(type, await self._askable(type, where), self._sight(type, "s"))

    async def belonging(self, type: str, where: Filter, *, limit: int, after: Position | None) -> tuple[list[Seen], Position | None]:
        """As :meth:`find`, under a scope to read: for a record fetched whole rather than searched."""
        self.plan.require(type, "r")
        page = await self._snapshot.find(type, where, self._sight(type, "r"), limit=limit, after=after)
        return await self._seen(page.rows), page.next

    async def reachable(self, type: str, where: Filter, limit: int) -> list[Seen]:
        """Rows of ``type`` that another answer brings along (includes); none if no scope covers the type."""
        if not self.plan.scopes(type, "r") and not self.plan.scopes(type, "s"):
            return []
        where = await self._askable(type, where)
        page = await self._snapshot.find(type, where, self._sight(type, "rs"), limit=limit)
        return await self._seen(page.rows)

    async def types_of(self, patient: str) -> frozenset[str]:
        """The types of which this patient has rows, in view or not: only to spare questions that nothing can answer."""
        return await self._snapshot.types_of(frozenset({patient}))

    async def shows(self, targets: Iterable[str]) -> frozenset[str]:
        """Those of these ``Type/id`` that are in view."""
        return await self._snapshot.visible(targets, lambda type: self._sight(type, "rs"))

    async def _askable(self, type: str, where: Filter, sort: tuple[SortKey, ...] = ()) -> Filter:
        """The condition as this caller may ask it: references lead only to rows in view."""
        if self.plan.everything:
            return where
        hidden_references.require_answerable(type, where, sort)
        own = {f"Patient/{patient}" for patient in self.plan.patients or ()}
        asked = set(hidden_references.targets(where))
        if asked <= own:
            return where
        return hidden_references.limited(where, await self.shows(asked))

    def _sight(self, type: str, letters: str) -> Sight:
        return self.plan.sight(type, self.now, letters)

    async def _absent(self, type: str, id: str) -> Problem:
        versions = await self._snapshot.versions(type, id, self._sight(type, "r"))
        if versions and versions[-1].interaction == "delete":
            return Problem("gone", f"{type}/{id} has been deleted.")
        return not_found(type, id)

    async def _seen(self, rows: Sequence[Row]) -> list[Seen]:
        if self.plan.everything:
            return [Seen(row.type, row.id, row.version, row.updated, row.body, row.interaction) for row in rows]
        targets = {pointer.target for row in rows for pointer in row.pointers}
        targets |= {target for row in rows for era in row.eras for _, target in era.pointers}
        shown = await self.shows(targets) if targets else frozenset()
        admitted = {type: self.plan.admitted(type) for type in {row.type for row in rows}}
        return [self._projected(row, admitted[row.type], shown) for row in rows]

    async def withheld(self, row: Row) -> list[jsontext.Path]:
        """The paths of a row's parts that this caller is not shown; for a write that replaces the row."""
        shown = await self.shows(pointer.target for pointer in row.pointers)
        return _cut(row, self.plan.admitted(row.type), shown)

    def _projected(self, row: Row, admitted: frozenset[int], shown: frozenset[str]) -> Seen:
        version, updated, body = row.version, row.updated, row.body
        if body and (row.facets or row.pointers) and (cut := _cut(row, admitted, shown)):
            body = jsontext.without(body, cut)
        if row.eras:
            released = self.now if self.plan.released else None
            version, updated = versions.as_seen(row.eras, admitted, shown, released)
            if body and (version, updated) != (row.version, row.updated):
                body = versions.restamped(body, version, updated)
        return Seen(row.type, row.id, version, updated, body, row.interaction)


def _cut(row: Row, admitted: frozenset[int], shown: frozenset[str]) -> list[jsontext.Path]:
    """The paths of the parts of a row whose class is not admitted, and of its references to what is not shown."""
    cut = [facet.path for facet in row.facets if facet.vclass not in admitted]
    return cut + [pointer.path for pointer in row.pointers if pointer.target not in shown]


def not_found(type: str, id: str) -> Problem:
    """The one answer for what never was, what is withheld, and what was deleted out of view."""
    return Problem("not_found", f"{type}/{id} is not known.")


def _renumbered(versions: list[Seen]) -> list[Seen]:
    """Versions that look alike to the caller are one version, the first of them; the first in view is the one that created it."""
    kept: list[Seen] = []
    for seen in versions:
        if kept and seen.version == kept[-1].version:
            continue
        if seen.interaction != "delete":
            created = not kept or kept[-1].interaction == "delete"
            seen = msgspec.structs.replace(seen, interaction="create" if created else "update")
        kept.append(seen)
    return kept
