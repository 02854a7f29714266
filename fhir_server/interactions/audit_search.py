"""Searches AuditEvents in the record and in the audit log: first the record's, in the order of the store, then the log's, newest first.

With ``_sort`` both are sorted together, which needs all of them at once.
"""

from __future__ import annotations

from typing import Final

from fhir_server import jsontext
from fhir_server.access.audit_trail import START, TYPE, AuditTrail
from fhir_server.access.versions import last_updated_entry
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisiblePage, VisibleVersion
from fhir_server.errors import Problem
from fhir_server.search import index, match
from fhir_server.search.filters import EVERYTHING, Filter
from fhir_server.search.rows import Position, SearchableRow, SortKey
from fhir_server.search.visibility import Visibility, VisibilityClause

_LOG: Final = "audit log"  # the first key of a position in the log
_MOST_SORTED: Final = 20_000
_PAGE: Final = 1000
_ALL: Final = Visibility((VisibilityClause(None, frozenset({0}), released_only=False),))


class AuditSearch:
    """Answers as :class:`~fhir_server.access.view.View` does, for the type AuditEvent."""

    def __init__(self, view: View, trail: AuditTrail, base: str) -> None:
        self._view = view
        self._trail = trail
        self._base = base

    async def count(self, type: str, where: Filter) -> int:
        """See :meth:`View.count`."""
        return await self._view.count(type, where) + await self._trail.count(self._view, where)

    async def find(
        self, type: str, where: Filter, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> VisiblePage:
        """See :meth:`View.find`.  Raises Problem ``invalid`` for ``sort`` if there are too many to sort."""
        if sort:
            return await self._find_sorted(type, where, sort, limit, after)
        versions: list[VisibleVersion] = []
        before = START
        if after is not None and after.keys[:1] == (_LOG,):
            before = int(after.keys[1] or 0)
        else:
            page = await self._view.find(type, where, limit=limit, after=after)
            if page.next is not None:
                return VisiblePage(page.versions, page.next)
            versions = page.versions
        found = await self._trail.find(self._view, where, before=before, limit=limit - len(versions))
        versions = versions + self._trail.show(self._view, found.events)
        return VisiblePage(versions, None if found.before is None else Position((_LOG, found.before), ""))

    async def _find_sorted(self, type: str, where: Filter, sort: tuple[SortKey, ...], limit: int, after: Position | None) -> VisiblePage:
        view, already = self._view, len(self._view.shown)
        versions: dict[str, tuple[VisibleVersion, SearchableRow]] = {}
        position: Position | None = None
        while True:
            page = await view.find(type, where, sort=sort, limit=_PAGE, after=position)
            versions |= {version.id: (version, self._row(version, len(versions) + number)) for number, version in enumerate(page.versions)}
            position = page.next
            _limit(len(versions))
            if position is None:
                break
        before: int | None = START
        where = await view.without_steps(type, await view.with_codes(where))
        while before is not None:
            found = await self._trail.find(view, where, sort=sort, before=before, limit=_PAGE)
            versions |= {event.version.id: (event.version, event.row) for event in found.events}
            before = found.before
            _limit(len(versions))
        rows = match.search([row for _, row in versions.values()], type, EVERYTHING, _ALL, sort=sort, limit=limit + 1, after=after)
        shown = rows[:limit]
        del view.shown[already:]
        view.shown += [(row.patients, type, row.id) for row in shown]
        more = Position(match.sort_values(sort, _ALL, shown[-1]), shown[-1].id) if shown and len(rows) > limit else None
        return VisiblePage([versions[row.id][0] for row in shown], more, len(versions) if after is None else None)

    def _row(self, version: VisibleVersion, number: int) -> SearchableRow:
        """A row of the record as the caller sees it."""
        entries = index.entries_with_words(TYPE, jsontext.parse(version.body), self._base)
        return SearchableRow(TYPE, version.id, (), 0, 0, (*entries, last_updated_entry(version.updated, 0)), (1, number))


def _limit(count: int) -> None:
    if count > _MOST_SORTED:
        raise Problem("invalid", f"More than {_MOST_SORTED} AuditEvents cannot be sorted. Narrow the search, or leave out _sort.")
