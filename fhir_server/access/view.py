"""The View: the store as one caller may see it at one instant.  Every interaction reads through a View and nothing else.

A row leaves as a :class:`VisibleVersion`: its body without the elements whose class the permissions do not admit and without
references to hidden rows, and with the version number and time that follow from what the caller may see.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import takewhile, zip_longest

import msgspec

from fhir_server import budget, jsontext
from fhir_server.access import versions, visible_parts
from fhir_server.access.permissions import Permissions, types_seen_through
from fhir_server.access.stored_terminology import codes_of, terminology_of
from fhir_server.access.version_numbers import Sight
from fhir_server.access.visible_changes import EntryKey, HistoryPeriod, VisibleChanges
from fhir_server.access.visible_history import VisibleHistory
from fhir_server.access.visible_versions import VisibleChangesPage, VisibleHistoryPage, VisiblePage, VisibleVersion
from fhir_server.errors import Problem
from fhir_server.search import canonical_steps, code_sets, hidden_references, looked_up_steps, match, steps
from fhir_server.search.filters import EVERYTHING, Filter, IdIs, Step
from fhir_server.search.limits import MAX_CHAIN_SORTED, require_few_to_sort
from fhir_server.search.rows import Position, RowEntries, SearchableRow, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.smart.core.scopes import INTERACTIONS
from fhir_server.store import Row, Snapshot
from fhir_server.store.logs import AUDIT_LOG
from fhir_server.terminology.sources import Terminology

_INDEXED = 200  # bytes that the index entries of a row take, about
_NUMBER = re.compile("[1-9][0-9]{0,9}")

ShownRow = tuple[tuple[str, ...], str, str]
"""The patients, the type and the id of a row that a View gave out."""


class View:
    """What a caller with these permissions sees in this snapshot at the instant ``now`` (microseconds).

    ``shown`` lists each row that it gives out, for the audit log.
    """

    def __init__(self, snapshot: Snapshot, permissions: Permissions, now: int, shown: list[ShownRow] | None = None) -> None:
        self._snapshot = snapshot
        self.permissions = permissions
        self.now = now
        self.shown: list[ShownRow] = [] if shown is None else shown
        self._referred: dict[str, frozenset[str]] = {}  # by type: ids of common rows to which visible rows refer

    async def read(self, type: str, id: str) -> VisibleVersion:
        """The current version.  Raises Problem ``gone`` if its deletion is visible, otherwise ``not_found``."""
        self.permissions.require(type, "r")
        await self._look_up_referred(type, frozenset({id}))
        row = await self._snapshot.read(type, id, self._visibility(type, "r"))
        if row is None:
            raise await self._absent(type, id)
        return (await self._visible_versions((row,)))[0]

    async def read_for_write(self, type: str, id: str, interactions: str = "cruds") -> VisibleVersion | None:
        """The current version if it is visible under a scope for one of these interactions, else None; a write needs no read scope."""
        await self._look_up_referred(type, frozenset({id}))
        row = await self._snapshot.read(type, id, self._visibility(type, interactions))
        return (await self._visible_versions((row,)))[0] if row else None

    async def visible_after_write(self, row: Row) -> VisibleVersion | None:
        """As :meth:`read_for_write`, for a version that was written in this transaction."""
        visibility = self._visibility(row.type, "cruds")
        # Clauses without a condition can be judged without the row's index entries.
        unconditional = tuple(clause for clause in visibility.clauses if clause.where is EVERYTHING)
        if match.is_visible(
            Visibility(unconditional, visibility.now), SearchableRow(row.type, row.id, row.patients, row.class_id, row.release_at)
        ):
            return (await self._visible_versions((row,)))[0]
        return await self.read_for_write(row.type, row.id)

    async def version(self, type: str, id: str, version: str) -> VisibleVersion:
        """The version with this number, as the caller counts versions.  Raises Problem ``not_found`` or ``gone``."""
        self.permissions.require(type, "r")
        await self._look_up_referred(type, frozenset({id}))
        found = await self._find_version(type, id, version, "r")
        if found is None:
            raise not_found(type, f"{id}/_history/{version}")
        if found.interaction == "delete":
            raise Problem("gone", f"{type}/{id} version {version} is a deletion.")
        return found

    async def history(self, type: str, id: str, limit: int, before: int | None = None, since: int = 0) -> VisibleHistoryPage:
        """Visible versions down to the first since an instant, from the newest on, or from the one before number ``before``.

        Raises Problem ``not_found`` if there are none.
        """
        self.permissions.require(type, "r")
        await self._look_up_referred(type, frozenset({id}))
        page = await self._versions_of(type, id, "r").page(limit, before)
        if page is None:
            raise not_found(type, id)
        versions = await self._visible_versions([*page.rows, *([page.older] if page.older else [])])
        named = versions if self.permissions.sees_everything else [*_as_interactions(versions)]
        recent = [*takewhile(lambda version: version.updated - version.updated % 1000 >= since, named)]
        if len(recent) == len(named) and since == 0:
            return VisibleHistoryPage(recent[: len(page.rows)], page.last if page.older else None, page.total)
        total = len(recent) if before is None and len(recent) <= limit else None
        return VisibleHistoryPage(recent[: len(page.rows)], page.last if len(recent) > len(page.rows) else None, total)

    async def changes(
        self, types: Collection[str], limit: int, period: HistoryPeriod, after: EntryKey | None = None, where: Filter = EVERYTHING
    ) -> VisibleChangesPage:
        """The visible versions of all resources of these types, or of those with some ids or patients, as their histories show them.

        Raises Problem ``forbidden`` without a read scope for each type, and ``not_found`` for a single id of which nothing is visible.
        """
        ids = where.ids if isinstance(where, IdIs) else None
        single = next(iter(ids)) if ids is not None and len(ids) == 1 else None
        visibilities: dict[str, Visibility] = {}
        for type in types:
            self.permissions.require(type, "r")
            await self._look_up_referred(type, ids)
            visible = self._visibility(type, "r")
            visibilities[type] = visible if where is EVERYTHING else visible.limited_to(where)
            if single is not None and await self._snapshot.newest(type, single, visible) is None:
                raise not_found(type, single)
        found = VisibleChanges(
            self._snapshot, visibilities, lambda type, id: self._versions_of(type, id, "r"), not self.permissions.sees_everything
        )
        entries = await found.page(limit + 1, period, after)
        shown = await self._visible_versions([entry.row for entry in entries[:limit]])
        if not self.permissions.sees_everything:
            shown = [_as_interaction(version, entry.older) for version, entry in zip(shown, entries, strict=False)]
        more = entries[limit - 1].key if len(entries) > limit > 0 else None
        return VisibleChangesPage(shown, more, len(shown) if after is None and len(entries) <= limit else None)

    async def _find_version(self, type: str, id: str, number: str, interactions: str) -> VisibleVersion | None:
        row = await self._versions_of(type, id, interactions).find(int(number)) if _NUMBER.fullmatch(number) else None
        return (await self._visible_versions((row,)))[0] if row else None

    def _versions_of(self, type: str, id: str, interactions: str) -> VisibleHistory:
        classes, released = self.permissions.admitted_classes(type), self.now if self.permissions.released_only else None
        sight = None if self.permissions.sees_everything else Sight(classes, frozenset(), released, self.permissions.owners(type))
        return VisibleHistory(self._snapshot, type, id, self._visibility(type, interactions), sight, self._shown)

    async def find(
        self, type: str, where: Filter, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> VisiblePage:
        """At most ``limit`` visible rows that match ``where``, in order.

        Raises Problem ``forbidden`` without a search scope, and ``invalid`` if the caller may not ask ``where`` or ``sort``, or if more
        rows match than can be sorted by a chained key.
        """
        self.permissions.require(type, "s")
        where = await self._require_answerable(type, where, sort)
        sort = await steps.sort_with_visibilities(sort, self._visibility_of_step)
        await self._look_up_referred(type, visible_parts.ids_in(where))
        visibility = self._visibility(type, "s")
        if any(key.steps for key in sort):
            require_few_to_sort(await self._snapshot.count(type, where, visibility, most=MAX_CHAIN_SORTED + 1))
        page = await self._snapshot.find(type, where, visibility, sort=sort, limit=limit, after=after)
        return VisiblePage(await self._visible_versions(page.rows), page.next, page.total)

    async def count(self, type: str, where: Filter) -> int:
        """The number of visible rows that match ``where``."""
        self.permissions.require(type, "s")
        where = await self._require_answerable(type, where)
        await self._look_up_referred(type, visible_parts.ids_in(where))
        return await self._snapshot.count(type, where, self._visibility(type, "s"))

    async def find_readable(self, type: str, where: Filter, *, limit: int, after: Position | None) -> VisiblePage:
        """As :meth:`find`, but under a read scope: for ``$everything``, which reads a record and does not search it."""
        self.permissions.require(type, "r")
        await self._look_up_referred(type, visible_parts.ids_in(where))
        page = await self._snapshot.find(type, where, self._visibility(type, "r"), limit=limit, after=after)
        return VisiblePage(await self._visible_versions(page.rows), page.next)

    async def index_entries(
        self, type: str, where: Filter, params: Collection[tuple[str, str]], limit: int, interactions: str = "s"
    ) -> tuple[RowEntries, ...]:
        """The visible index entries of ``params``, (code, kind), of at most ``limit`` visible rows that match ``where``, in no order.

        Reads no bodies.  It needs a scope for one of ``interactions``.  Raises Problem as :meth:`find` does.
        """
        if not any(self.permissions.scopes(type, one) for one in INTERACTIONS if one in interactions):
            self.permissions.require(type, "s")
        where = await self._require_answerable(type, where)
        await self._look_up_referred(type, visible_parts.ids_in(where))
        found = await self._snapshot.entries_of(type, where, self._visibility(type, interactions), params, limit)
        if (spending := budget.current()) is not None:
            spending.take(0, _INDEXED * len(found))
        return found

    async def in_order(self, type: str, ids: Sequence[str]) -> list[VisibleVersion]:
        """The visible rows with these ids, in their order, under a scope to read or to search."""
        by_id = {version.id: version for version in await self.find_included(type, IdIs(frozenset(ids)), len(ids))}
        return [by_id[id] for id in ids if id in by_id]

    async def peek(self, type: str, where: Filter, limit: int) -> list[VisibleVersion]:
        """As :meth:`find_included`, of rows that the answer does not give out: ``shown`` does not list them."""
        given = len(self.shown)
        found = await self.find_included(type, where, limit)
        del self.shown[given:]
        return found

    async def find_included(self, type: str, where: Filter, limit: int) -> list[VisibleVersion]:
        """Rows of ``type`` that a search includes; none if no scope covers the type."""
        if not self.permissions.scopes(type, "r") and not self.permissions.scopes(type, "s"):
            return []
        where = await self._require_answerable(type, where)
        await self._look_up_referred(type, visible_parts.ids_in(where))
        page = await self._snapshot.find(type, where, self._visibility(type, "rs"), limit=limit)
        return await self._visible_versions(page.rows)

    async def find_included_version(self, type: str, id: str, version: str) -> VisibleVersion | None:
        """The version with this number, as the caller counts versions, that a search includes; None if it is not visible."""
        if not self.permissions.scopes(type, "r") and not self.permissions.scopes(type, "s"):
            return None
        found = await self._find_version(type, id, version, "rs")
        return found if found is not None and found.interaction != "delete" else None

    async def types_of_unfiltered(self, *patients: str) -> frozenset[str]:
        """The types of which these patients have rows, visible or not.

        It looks past visibility: use it only to skip queries that cannot match, never for an answer.
        """
        return await self._snapshot.types_of_unfiltered(frozenset(patients))

    async def visible_targets(self, targets: Iterable[str]) -> frozenset[str]:
        """Those of these ``Type/id`` that are visible."""
        targets = frozenset(targets)
        for type in types_seen_through():
            start = type + "/"
            if ids := frozenset([target.partition("/")[2] for target in targets if target.startswith(start)]):
                await self._look_up_referred(type, ids)
        return await self._snapshot.visible(targets, lambda type: self._visibility(type, "rs"))

    async def audit_lines_unfiltered(self, key: str | None, before: int, limit: int) -> tuple[tuple[int, bytes], ...]:
        """Lines of the audit log, newest first: for :mod:`~fhir_server.access.audit_trail` alone, which decides what the caller sees."""
        return await self._snapshot.log_lines_unfiltered(AUDIT_LOG, key, before=before, limit=limit)

    async def records_unfiltered(self, kind: str, prefix: str) -> tuple[tuple[str, bytes], ...]:
        """(key, value) of key-value records: for code that keeps what belongs to callers, and asks for the caller's own alone."""
        return await self._snapshot.records_unfiltered(kind, prefix)

    @property
    def terminology(self) -> Terminology:
        """The code systems, value sets and concept maps that the caller sees: the stored ones first."""
        return terminology_of(self.find_included)

    async def with_codes(self, where: Filter) -> Filter:
        """The condition in which the codes of the value sets, and those above and below codes, are put in.

        Raises Problem ``invalid`` for what is not known or not loaded, and for too many codes.
        """
        return await code_sets.with_codes(where, lambda question: codes_of(question, self.terminology))

    async def without_steps(self, type: str, where: Filter) -> Filter:
        """The condition in which the rows that a step leads to are in its place: for rows of ``type`` that are in no store.

        Raises Problem as :meth:`find` does, and ``invalid`` for a step to too many visible rows.
        """

        async def look_up(step: Step) -> Filter:
            return await looked_up_steps.plain(type, await self._require_answerable(type, step), self._snapshot.entries_of)

        return await steps.with_each_step(where, look_up)

    async def _require_answerable(self, type: str, where: Filter, sort: tuple[SortKey, ...] = ()) -> Filter:
        """The condition, in which references and steps lead to visible rows only.

        Raises Problem ``invalid`` if the caller may not ask it, ``forbidden`` if no search scope covers the type of a step.
        """
        where = await self.with_codes(where)
        if not self.permissions.sees_everything:
            hidden_references.require_answerable(type, where, sort)
            patients = {f"Patient/{patient}" for patient in self.permissions.patients or ()}
            targets = set(hidden_references.targets(where))
            if not targets <= patients:
                where = hidden_references.limit_to_visible(where, await self._shown(targets))
        where = await steps.with_visibilities(where, self._visibility_of_step)
        return await canonical_steps.followed(type, where, self._snapshot.entries_of)

    async def _visibility_of_step(self, type: str, where: Filter) -> Visibility:
        """What the caller sees of the type to which a chained parameter or ``_has`` leads: as much as by a search of that type.

        Raises Problem ``forbidden`` without a search scope.
        """
        self.permissions.require(type, "s")
        await self._look_up_referred(type, visible_parts.ids_in(where))
        return self._visibility(type, "s")

    def _visibility(self, type: str, interactions: str) -> Visibility:
        return self.permissions.visibility(type, self.now, interactions, self._referred.get(type, frozenset()))

    async def _look_up_referred(self, type: str, ids: frozenset[str] | None) -> None:
        """Find out which rows of a type that is common to all patients visible rows refer to, of these ids (None: of all)."""
        if type not in types_seen_through():
            return
        targets = None if ids is None else frozenset(f"{type}/{id}" for id in ids)
        found: set[str] = set()
        for source, param in self.permissions.seen_through(type):
            visible = self._visibility(source, "rs")
            found |= await self._snapshot.references_of(source, param, visible, targets)
        self._referred[type] = frozenset(target.partition("/")[2] for target in found if target.startswith(type + "/"))

    async def _absent(self, type: str, id: str) -> Problem:
        newest = await self._snapshot.newest(type, id, self._visibility(type, "r"))
        if newest is not None and newest.interaction == "delete":
            return Problem("gone", f"{type}/{id} has been deleted.")
        return not_found(type, id)

    async def _visible_versions(self, rows: Sequence[Row]) -> list[VisibleVersion]:
        if (spending := budget.current()) is not None:
            spending.take(len(rows), sum([len(row.body) for row in rows]))
        self.shown += [(row.patients, row.type, row.id) for row in rows]
        if self.permissions.sees_everything:
            return [VisibleVersion(row.type, row.id, row.version, row.updated, row.body, row.interaction, True) for row in rows]
        shown = await self._shown({target for row in rows for target in visible_parts.guards(row)})
        if len(rows) == 1:
            return [self._without_hidden_parts(rows[0], self.permissions.admitted_classes(rows[0].type), shown)]
        admitted = {type: self.permissions.admitted_classes(type) for type in {row.type for row in rows}}
        return await budget.each(lambda row: self._without_hidden_parts(row, admitted[row.type], shown), rows)

    async def _shown(self, targets: set[str]) -> frozenset[str]:
        """Those of these ``Type/id`` that do not hide what refers to them: the visible ones, and those that were visible when deleted.

        A deletion that the caller may know of changes no other row; what a hidden row hid stays hidden after its deletion.
        """
        shown = await self.visible_targets(targets) if targets else frozenset[str]()
        hidden = targets - shown
        if not hidden:
            return shown
        deleted = await self._snapshot.deleted_unfiltered(hidden)
        return shown | {target for target in deleted if await self._is_deletion_visible(*target.split("/"))}

    async def _is_deletion_visible(self, type: str, id: str) -> bool:
        newest = await self._snapshot.newest(type, id, self._visibility(type, "rs"))
        return newest is not None and newest.interaction == "delete"

    async def hidden_paths(self, row: Row) -> list[jsontext.Path]:
        """The paths of the outermost elements of a row that are hidden from this caller; for a write that replaces the row."""
        shown = await self._shown(set(visible_parts.guards(row)))
        hidden = {*visible_parts.paths_to_remove(row, self.permissions.admitted_classes(row.type), shown)}
        return [path for path in hidden if not any(path[:length] in hidden for length in range(1, len(path)))]

    def _without_hidden_parts(self, row: Row, admitted: frozenset[int], shown: frozenset[str]) -> VisibleVersion:
        version, updated, body = row.version, row.updated, row.body
        if body and (row.labeled_elements or row.guarded_references) and (hidden := visible_parts.paths_to_remove(row, admitted, shown)):
            body = jsontext.remove_paths(body, hidden)
        if row.history is not None:
            released = self.now if self.permissions.released_only else None
            version, updated = versions.visible_version(row.history, Sight(admitted, shown, released, self.permissions.owners(row.type)))
            if body and (version, updated) != (row.version, row.updated):
                body = versions.with_version_meta(body, version, updated)
        return VisibleVersion(row.type, row.id, version, updated, body, row.interaction)


def not_found(type: str, id: str) -> Problem:
    """The one answer for a resource that never existed, is hidden, or was hidden when it was deleted."""
    return Problem("not_found", f"{type}/{id} is not known.")


def _as_interactions(versions: list[VisibleVersion]) -> Iterator[VisibleVersion]:
    """The versions, newest first, with what each was to the caller: the first visible version is the creation."""
    for version, older in zip_longest(versions, versions[1:]):
        yield _as_interaction(version, older)


def _as_interaction(version: VisibleVersion, older: VisibleVersion | Row | None) -> VisibleVersion:
    """The version with what it was to the caller, who sees ``older`` before it."""
    if version.interaction == "delete":
        return version
    is_creation = older is None or older.interaction == "delete"
    return msgspec.structs.replace(version, interaction="create" if is_creation else "update")
