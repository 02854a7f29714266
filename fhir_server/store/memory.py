"""The reference store: Python dicts, with conditions evaluated by :mod:`fhir_server.search.match`.

It is simple and slow.  Tests compare the other stores with it.  URL ``memory:``; every connection is a new store.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import msgspec

from fhir_server import budget
from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.search import match
from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position, RowEntries, SearchableRow, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import (
    IndexedRow,
    LinkEntries,
    LogEntry,
    Page,
    PermissionEpoch,
    Row,
    Transaction,
    VersionStamp,
    memory_changes,
    row_order,
)
from fhir_server.store.changes import Change, ChangeRange
from fhir_server.store.logs import HEAD, NOT_FIRST, PendingRecord, PurgedLine, unlinked
from fhir_server.store.memory_key_values import MemoryKeyValues
from fhir_server.store.version_history import HORIZON
from fhir_server.store.version_purge import StoredVersion, choose

T = TypeVar("T")
_Key = tuple[str, str]  # type and id


class _Version(NamedTuple):
    indexed: IndexedRow
    stored: int  # the number of versions that were ever stored, including this one
    references: frozenset[tuple[str, object]]  # parameter and value of its reference entries

    @staticmethod
    def of(indexed: IndexedRow, stored: int) -> _Version:
        return _Version(indexed, stored, frozenset((entry.param, entry.value) for entry in indexed.entries if entry.kind == "reference"))

    @property
    def row(self) -> Row:
        return self.indexed.row

    @property
    def is_deletion(self) -> bool:
        return self.row.interaction == "delete"


@dataclass
class _State:
    history: dict[_Key, tuple[_Version, ...]] = field(default_factory=dict)  # oldest first; the last one is current
    stored: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    epochs: dict[str | None, int] = field(default_factory=dict)
    key_values: dict[tuple[str, str], tuple[bytes, int, str]] = field(default_factory=dict)
    logs: dict[str, list[tuple[int, tuple[str, ...], bytes]]] = field(default_factory=dict)  # number, keys and line
    numbers: dict[str, int] = field(default_factory=dict)  # the last number that each log gave

    def append(self, log: str, entries: list[LogEntry], link: LinkEntries) -> None:
        """Append entries to a log."""
        head, _, _ = self.key_values.get((HEAD, log), (None, 0, ""))
        lines, new_head = link(head, entries)
        first = self.numbers.get(log, 0) + 1
        self.numbers[log] = first + len(lines) - 1
        numbered = enumerate(zip(entries, lines, strict=True), first)
        self.logs.setdefault(log, []).extend((number, entry.keys, line) for number, (entry, line) in numbered)
        if new_head is not None:
            self.key_values[HEAD, log] = new_head, MAX_INSTANT, ""

    def advance_epoch(self, patient: str | None) -> None:
        self.epochs[patient] = self.epochs.get(patient, 0) + 1

    def copy(self) -> _State:
        return replace(
            self,
            history=dict(self.history),
            classes=dict(self.classes),
            epochs=dict(self.epochs),
            key_values=dict(self.key_values),
            logs={name: list(lines) for name, lines in self.logs.items()},
            numbers=dict(self.numbers),
        )


def _searchable(version: _Version, place: tuple[int, int] = (0, 0)) -> SearchableRow:
    row = version.row
    return SearchableRow(row.type, row.id, row.patients, row.class_id, row.release_at, version.indexed.entries, place)


def _searchable_current(versions: tuple[_Version, ...]) -> SearchableRow:
    """Return the last of these versions with its place in the order of rows."""
    patients = versions[-1].row.patients
    number = row_order.patient_number(patients[0]) if patients else 0
    return _searchable(versions[-1], (number, row_order.first_stored([(version.row, version.stored) for version in versions])))


class _Transaction:
    """See :class:`fhir_server.store.Transaction`."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def _rows(self, type: str) -> list[SearchableRow]:
        histories = [versions for (row_type, _), versions in self._state.history.items() if row_type == type]
        return [_searchable_current(versions) for versions in histories if not versions[-1].is_deletion]

    def _row(self, searchable: SearchableRow) -> Row:
        return self._state.history[searchable.type, searchable.id][-1].row

    def expect_read(self, type: str, id: str, visibility: Visibility) -> None:
        """Do nothing: a query costs no message here."""

    async def read(self, type: str, id: str, visibility: Visibility) -> Row | None:
        versions = self._state.history.get((type, id))
        if not versions or versions[-1].is_deletion or not match.is_visible(visibility, _searchable(versions[-1])):
            return None
        return versions[-1].row

    def named(self, name: str) -> SearchableRow | None:
        """See :class:`fhir_server.search.match.OtherRows`."""
        type, _, id = name.partition("/")
        versions = self._state.history.get((type, id))
        return _searchable(versions[-1]) if versions and not versions[-1].is_deletion else None

    def of_type(self, type: str) -> Iterable[SearchableRow]:
        """See :class:`fhir_server.search.match.OtherRows`."""
        return self._rows(type)

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        rows = match.search(self._rows(type), type, where, visibility, sort=sort, after=after, others=self)
        page = rows[:limit]
        more = Position(match.sort_values(sort, visibility, page[-1], self), page[-1].id) if page and len(rows) > limit else None
        return Page(tuple(map(self._row, page)), more)

    async def count(self, type: str, where: Filter, visibility: Visibility, *, most: int | None = None) -> int:
        return len(match.search(self._rows(type), type, where, visibility, limit=most, others=self))

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        pairs = {target: target.partition("/") for target in targets}
        return frozenset([target for target, (type, _, id) in pairs.items() if await self.read(type, id, visibilities(type))])

    async def history_horizon(self) -> int:
        return int(self._state.key_values.get((HORIZON, ""), (b"0", 0, ""))[0])

    async def with_past_unfiltered(self, after: tuple[str, str], limit: int) -> tuple[tuple[str, str], ...]:
        return tuple(sorted([key for key, versions in self._state.history.items() if len(versions) > 1 and key > after])[:limit])

    async def deleted_unfiltered(self, targets: Iterable[str]) -> frozenset[str]:
        keys = {target: target.partition("/") for target in targets}
        histories = {target: self._state.history.get((type, id), ()) for target, (type, _, id) in keys.items()}
        return frozenset(target for target, versions in histories.items() if versions and versions[-1].is_deletion)

    async def newest(self, type: str, id: str, visibility: Visibility) -> Row | None:
        versions = self._state.history.get((type, id), ())
        visible = await self.versions(type, id, visibility, (versions[-1].row.version if versions else 0,))
        return visible[0] if visible else None

    async def newest_of(self, names: Sequence[tuple[str, str]], visibilities: Mapping[str, Visibility]) -> dict[tuple[str, str], Row]:
        return await memory_changes.newest_of(self, names, visibilities)

    async def versions(self, type: str, id: str, visibility: Visibility, numbers: Collection[int] | None = None) -> tuple[Row, ...]:
        versions = self._state.history.get((type, id), ())
        contents = [version for version in versions if not version.is_deletion]
        if not contents or not match.is_visible(visibility, _searchable(contents[-1])):
            return ()
        chosen = [version for version in versions if numbers is None or version.row.version in numbers]
        return tuple(version.row for version in chosen if match.is_visible(visibility, _searchable(version)))

    async def stamps_unfiltered(self, type: str, id: str, numbers: Collection[int]) -> dict[int, VersionStamp]:
        rows = [version.row for version in self._state.history.get((type, id), ())]
        return {row.version: memory_changes.stamp(row) for row in rows if row.version in numbers}

    async def changes_unfiltered(self, visibilities: Mapping[str, Visibility], limit: int, range: ChangeRange) -> tuple[Change, ...]:
        return memory_changes.changes(self._state.history, visibilities, limit, range)

    async def classes(self) -> tuple[str, ...]:
        return tuple(self._state.classes)

    async def permission_epoch(self, patient: str | None) -> PermissionEpoch:
        epochs = self._state.epochs
        return PermissionEpoch(epochs.get(None, 0), 0 if patient is None else epochs.get(patient, 0), len(self._state.classes))

    async def types_of_unfiltered(self, patients: frozenset[str]) -> frozenset[str]:
        current = [versions[-1] for versions in self._state.history.values()]
        return frozenset(
            version.row.type for version in current if not version.is_deletion and not patients.isdisjoint(version.row.patients)
        )

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        rows = match.search(self._rows(type), type, where, visibility, others=self)
        return frozenset(patient for row in rows for patient in row.patients)

    async def references_of(self, type: str, param: str, visibility: Visibility, among: frozenset[str] | None = None) -> frozenset[str]:
        found: set[str] = set()
        for row in self._rows(type):
            for clause in visibility.clauses:
                if match.is_visible(Visibility((clause,), visibility.now), row):
                    entries = [entry for entry in row.entries if (entry.param, entry.kind) == (param, "reference")]
                    found |= {str(entry.value[0]) for entry in entries if entry.class_id in clause.classes}
        return frozenset(found if among is None else found & among)

    async def entries_of(
        self, type: str, where: Filter, visibility: Visibility, params: Collection[tuple[str, str]], limit: int
    ) -> tuple[RowEntries, ...]:
        return match.visible_entries(self._rows(type), where, visibility, params, self)[:limit]

    async def log_lines_unfiltered(self, log: str, key: str | None, *, before: int | None, limit: int) -> tuple[tuple[int, bytes], ...]:
        lines = self._state.logs.get(log, [])
        found = [(n, line) for n, keys, line in lines if key in (None, *keys) and (before is None or n < before)]
        return tuple(found[::-1][:limit])

    async def prefetch(self, names: Iterable[str]) -> None:
        """Do nothing: reading one row is as cheap."""

    async def read_unfiltered(self, type: str, id: str) -> Row | None:
        versions = self._state.history.get((type, id))
        return versions[-1].row if versions else None

    async def read_past_unfiltered(self, type: str, id: str, first: int = 1, last: int | None = None) -> tuple[Row, ...]:
        past = [version.row for version in self._state.history.get((type, id), ())[:-1]]
        return tuple(row for row in past if first <= row.version <= (last or row.version))

    async def put(self, indexed: IndexedRow) -> None:
        self._add(self._require_next_version(indexed.row), indexed)

    async def delete(self, row: Row) -> None:
        versions = self._require_next_version(row)
        if not versions or versions[-1].is_deletion:
            raise Problem("conflict", "There is no current version.")
        deletion = msgspec.structs.replace(row, body=b"", interaction="delete")
        self._add(versions, IndexedRow(deletion, versions[-1].indexed.entries))

    def _add(self, versions: tuple[_Version, ...], indexed: IndexedRow) -> None:
        self._state.stored += 1
        self._state.history[indexed.row.type, indexed.row.id] = (*versions, _Version.of(indexed, self._state.stored))

    def _require_next_version(self, row: Row) -> tuple[_Version, ...]:
        """Return the stored versions.  Raises Problem ``conflict`` unless the row's version is the next one."""
        versions = self._state.history.get((row.type, row.id), ())
        if row.version != (versions[-1].row.version if versions else 0) + 1:
            raise Problem("conflict", "The resource was changed at the same time.")
        return versions

    async def relabel(self, *versions: IndexedRow) -> None:
        for indexed in versions:
            self._relabel(indexed)

    def _relabel(self, indexed: IndexedRow) -> None:
        row = indexed.row
        versions = self._state.history.get((row.type, row.id), ())
        index = next((index for index, version in enumerate(versions) if version.row.version == row.version), None)
        if index is None:
            raise Problem("conflict", "The resource was changed at the same time.")
        before = versions[index].row
        row = msgspec.structs.replace(row, body=before.body, updated=before.updated, interaction=before.interaction)
        relabeled = _Version.of(IndexedRow(row, indexed.entries), versions[index].stored)
        self._state.history[row.type, row.id] = (*versions[:index], relabeled, *versions[index + 1 :])

    async def purge_versions_unfiltered(self, type: str, id: str, before: int) -> int:
        versions = self._state.history.get((type, id), ())
        if not versions:
            return 0
        lost = [bool(one.references - later.references) for one, later in itertools.pairwise(versions)] + [False]
        purge = choose(
            [
                StoredVersion(
                    row.version, row.updated, row.class_id, row.release_at, row.patients, version.is_deletion, loses, version.stored
                )
                for version, loses in zip(versions, lost, strict=True)
                for row in (version.row,)
            ],
            before,
        )
        left = [version for version in versions if version.row.version not in purge.numbers]
        if purge.numbers:
            placed = [version._replace(stored=purge.stored.get(version.row.version, version.stored)) for version in left]
            self._state.history[type, id] = tuple(placed)
        return len(purge.numbers)

    async def erase_unfiltered(self, type: str, id: str) -> int:
        return len(self._state.history.pop((type, id), ()))

    async def records_unfiltered(self, kind: str, prefix: str = "", limit: int | None = None) -> tuple[tuple[str, bytes], ...]:
        records = self._state.key_values.items()
        return tuple(sorted((key, value[0]) for (of, key), value in records if of == kind and key.startswith(prefix))[:limit])

    async def set_record(self, kind: str, key: str, value: bytes | None) -> None:
        self._state.key_values.pop((kind, key), None)
        if value is not None:
            self._state.key_values[kind, key] = value, MAX_INSTANT, ""

    async def referrer_names_unfiltered(
        self, targets: Collection[str], after: str = "", limit: int | None = None
    ) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for target in targets:
            for row in await _Transaction.referrers_unfiltered(self, target):
                found[f"{row.type}/{row.id}"] = row.patients
        return {name: found[name] for name in sorted(name for name in found if name > after)[:limit]}

    async def referred_names_unfiltered(self, names: Collection[str], params: frozenset[str]) -> frozenset[str]:
        versions = [version for (type, id), versions in self._state.history.items() if f"{type}/{id}" in names for version in versions]
        return frozenset(
            str(entry.value[0])
            for version in versions
            for entry in version.indexed.entries
            if entry.kind == "reference" and f"{version.row.type}.{entry.param}" in params
        )

    async def referrers_unfiltered(self, target: str, params: frozenset[str] | None = None, limit: int | None = None) -> tuple[Row, ...]:
        def refers(type: str, version: _Version) -> bool:
            return any(value == (target,) and (params is None or f"{type}.{param}" in params) for param, value in version.references)

        histories = self._state.history.items()
        return tuple([versions[-1].row for (type, _), versions in histories if any(refers(type, one) for one in versions)][:limit])

    async def intern_class(self, key: str) -> int:
        return self._state.classes.setdefault(key, len(self._state.classes))

    def log_at_commit(self, log: str, entry: LogEntry, link: LinkEntries, record: PendingRecord | None = None) -> None:
        self._state.append(log, [entry], link)

    async def advance_epoch(self, patient: str | None) -> None:
        self._state.advance_epoch(patient)


class MemoryStore:
    """See :class:`fhir_server.store.Store`."""

    def __init__(self) -> None:
        self.state = _State()
        self.key_values = MemoryKeyValues(self)

    async def prepare(self) -> None:
        """Do nothing: the store is usable as it is."""

    async def latest_time(self) -> int:
        return max((versions[-1].row.updated for versions in self.state.history.values()), default=0)

    def snapshot(self) -> AbstractAsyncContextManager[_Transaction]:
        return self._snapshot()

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[_Transaction]:
        yield _Transaction(self.state.copy())

    async def write(self, job: Callable[[Transaction], Awaitable[T]]) -> T:
        state = self.state.copy()
        with budget.unbroken():  # another job would begin with the same state
            result = await job(_Transaction(state))
        self.state = state
        return result

    async def append_log(self, log: str, entries: Iterable[LogEntry], link: LinkEntries = unlinked) -> tuple[LogEntry, ...]:
        self.state.append(log, list(entries), link)
        return ()

    async def purge_log(self, log: str, purged: Sequence[PurgedLine], entry: LogEntry, link: LinkEntries) -> None:
        first = self.state.logs.get(log, [])[: len(purged)]
        if [number for number, _, _ in first] != [line.number for line in purged]:
            raise Problem("conflict", NOT_FIRST)
        self.state.append(log, [entry], link)
        del self.state.logs[log][: len(purged)]

    async def pending_entries(self, log: str, after: str = "", limit: int = 1000) -> tuple[tuple[str, bytes], ...]:
        return ()  # a transaction appends its entries itself

    async def discard_pending(self, log: str, ids: Collection[str]) -> None:
        """Do nothing: there are none."""

    async def read_log(self, log: str, after: int = 0, limit: int = 1000) -> tuple[tuple[int, bytes], ...]:
        return tuple([(number, line) for number, _, line in self.state.logs.get(log, []) if number > after][:limit])

    async def close(self) -> None:
        """Do nothing: no connection is open."""


def connect(url: str) -> MemoryStore:
    """Return a new, empty store.  Raises ValueError for any URL but ``memory:``."""
    if url != "memory:":
        raise ValueError(f"The memory store's URL is 'memory:', not {url!r}.")
    return MemoryStore()
