"""Reads and searches Subscriptions: the caller's own, and all of them for a system that sees everything."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from fhir_server import jsontext
from fhir_server.access.versions import last_updated_entry
from fhir_server.access.view import View, not_found
from fhir_server.access.visible_versions import VisiblePage, VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import subscription_records
from fhir_server.interactions.owned_jobs import owner
from fhir_server.interactions.subscription_records import TYPE, Stored
from fhir_server.search import index, match
from fhir_server.search.filters import AllOf, Filter
from fhir_server.search.rows import Position, SearchableRow, SortKey
from fhir_server.search.steps import steps
from fhir_server.search.visibility import Visibility, VisibilityClause

_ALL: Final = Visibility((VisibilityClause(None, frozenset({0}), released_only=False),))


async def own(view: View) -> list[Stored]:
    """The Subscriptions that the caller may see: its own.  An institution's feed sees those of all."""
    return await subscription_records.list_own(view, "" if view.permissions.sees_everything else owner(view.permissions))


async def read(view: View, id: str, interactions: str = "r") -> Stored:
    """The caller's Subscription, under a scope for any of ``interactions``.  Raises Problem ``not_found`` or ``forbidden``."""
    found = await readable(view, frozenset({id}), interactions)
    if not found:
        raise not_found(TYPE, id)
    return found[0]


async def readable(view: View, ids: Collection[str] = (), interactions: str = "r") -> list[Stored]:
    """Those of the caller's Subscriptions, all or the ones with these ids, that a scope for any of ``interactions`` covers.

    Raises Problem ``forbidden``.
    """
    view.permissions.require(TYPE, interactions[0])  # type: ignore[arg-type]
    covered = view.permissions.scope_condition(TYPE, interactions)
    wanted = [stored for stored in await own(view) if not ids or stored.id in ids]
    found = [stored for stored in wanted if match.matches(covered, searchable(stored.version()), frozenset({0}))]
    view.shown += [((), TYPE, stored.id) for stored in found]
    return found


class SubscriptionSearch:
    """Answers as :class:`~fhir_server.access.view.View` does, for the type Subscription."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def count(self, type: str, where: Filter) -> int:
        """See :meth:`View.count`."""
        return len((await self._search(where, ()))[0])

    async def find(
        self, type: str, where: Filter, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> VisiblePage:
        """See :meth:`View.find`."""
        rows, versions = await self._search(where, sort, limit + 1, after)
        shown = rows[:limit]
        self._view.shown += [((), type, row.id) for row in shown]
        more = Position(match.sort_values(sort, _ALL, shown[-1]), shown[-1].id) if shown and len(rows) > limit else None
        return VisiblePage([versions[row.id] for row in shown], more)

    async def _search(
        self, where: Filter, sort: tuple[SortKey, ...], limit: int | None = None, after: Position | None = None
    ) -> tuple[Sequence[SearchableRow], dict[str, VisibleVersion]]:
        self._view.permissions.require(TYPE, "s")
        if any(True for _ in steps(where)) or any(key.steps for key in sort):
            raise Problem("invalid", "Subscriptions are not searched by chains or _has.")
        where = AllOf((await self._view.with_codes(where), self._view.permissions.scope_condition(TYPE, "s")))
        versions = {stored.id: stored.version() for stored in await own(self._view)}
        rows = [searchable(version, number) for number, version in enumerate(versions.values())]
        return match.search(rows, TYPE, where, _ALL, sort=sort, limit=limit, after=after), versions


def searchable(version: VisibleVersion, number: int = 0) -> SearchableRow:
    """A Subscription with its index entries."""
    entries = index.entries_with_words(TYPE, jsontext.parse(version.body), "")
    return SearchableRow(TYPE, version.id, (), 0, 0, (*entries, last_updated_entry(version.updated, 0)), (1, number))
