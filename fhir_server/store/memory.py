"""The reference store: dicts, and the reference meaning of conditions.  Simple, slow, correct; for tests and for reading.

URL ``memory:``; every connection is a store of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import msgspec

from fhir_server.errors import Problem
from fhir_server.search import match
from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position, SearchableRow, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import IndexedRow, Page, PermissionEpoch, Row, Transaction, row_order, system_now

T = TypeVar("T")
_Key = tuple[str, str]


class _Version(NamedTuple):
    record: IndexedRow
    stored: int  # a count of all that was ever stored

    @property
    def row(self) -> Row:
        return self.record.row

    @property
    def deleted(self) -> bool:
        return self.row.interaction == "delete"


@dataclass
class _State:
    history: dict[_Key, tuple[_Version, ...]] = field(default_factory=dict)  # oldest first; the last one is current
    stored: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    epochs: dict[str | None, int] = field(default_factory=dict)
    key_values: dict[tuple[str, str], tuple[bytes, int, str]] = field(default_factory=dict)
    journals: dict[str, list[bytes]] = field(default_factory=dict)

    def copy(self) -> _State:
        journals = {name: list(lines) for name, lines in self.journals.items()}
        return replace(
            self,
            history=dict(self.history),
            classes=dict(self.classes),
            epochs=dict(self.epochs),
            key_values=dict(self.key_values),
            journals=journals,
        )


def _indexed(version: _Version, place: tuple[int, int] = (0, 0)) -> SearchableRow:
    row = version.row
    return SearchableRow(row.type, row.id, row.patients, row.class_id, row.release_at, version.record.entries, place)


def _placed(versions: tuple[_Version, ...]) -> SearchableRow:
    owners = versions[-1].row.patients
    number = row_order.patient_number(owners[0]) if owners else 0
    return _indexed(versions[-1], (number, row_order.first([(one.row, one.stored) for one in versions])))


class _Transaction:
    def __init__(self, state: _State) -> None:
        self._state = state

    def _rows(self, type: str) -> list[SearchableRow]:
        return [_placed(versions) for (kind, _), versions in self._state.history.items() if kind == type and not versions[-1].deleted]

    def _row(self, found: SearchableRow) -> Row:
        return self._state.history[found.type, found.id][-1].row

    async def read(self, type: str, id: str, visibility: Visibility) -> Row | None:
        versions = self._state.history.get((type, id))
        shown = versions and not versions[-1].deleted and match.is_visible(visibility, _indexed(versions[-1]))
        return versions[-1].row if versions and shown else None

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        found = match.search(self._rows(type), type, where, visibility, sort=sort, after=after)
        shown = found[:limit]
        more = Position(match.sort_values(sort, visibility, shown[-1]), shown[-1].id) if shown and len(found) > limit else None
        return Page(tuple(map(self._row, shown)), more)

    async def count(self, type: str, where: Filter, visibility: Visibility) -> int:
        return len(match.search(self._rows(type), type, where, visibility))

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        pairs = {target: target.partition("/") for target in targets}
        return frozenset([target for target, (type, _, id) in pairs.items() if await self.read(type, id, visibilities(type))])

    async def versions(self, type: str, id: str, visibility: Visibility) -> tuple[Row, ...]:
        versions = self._state.history.get((type, id), ())
        living = [version for version in versions if not version.deleted]
        if not living or not match.is_visible(visibility, _indexed(living[-1])):
            return ()
        return tuple(version.row for version in versions if match.is_visible(visibility, _indexed(version)))

    async def classes(self) -> tuple[str, ...]:
        return tuple(self._state.classes)

    async def permission_epoch(self, patient: str | None) -> PermissionEpoch:
        stamps = self._state.epochs
        return PermissionEpoch(stamps.get(None, 0), 0 if patient is None else stamps.get(patient, 0), len(self._state.classes))

    async def types_of(self, patients: frozenset[str]) -> frozenset[str]:
        current = [versions[-1] for versions in self._state.history.values()]
        return frozenset(one.row.type for one in current if not one.deleted and not patients.isdisjoint(one.row.patients))

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        return frozenset(patient for row in match.search(self._rows(type), type, where, visibility) for patient in row.patients)

    async def prefetch(self, names: Iterable[str]) -> None:
        """Nothing is gained by asking before."""

    async def read_unfiltered(self, type: str, id: str) -> Row | None:
        versions = self._state.history.get((type, id))
        return versions[-1].row if versions else None

    async def read_past_unfiltered(self, type: str, id: str) -> tuple[Row, ...]:
        return tuple(version.row for version in self._state.history.get((type, id), ())[:-1])

    async def put(self, record: IndexedRow) -> None:
        key, old = self._before(record.row)
        self._add(key, old, record)

    async def delete(self, row: Row) -> None:
        key, old = self._before(row)
        if not old or old[-1].deleted:
            raise Problem("conflict", "There is no current version.")
        self._add(key, old, IndexedRow(msgspec.structs.replace(row, body=b"", interaction="delete"), old[-1].record.entries))

    def _add(self, key: _Key, old: tuple[_Version, ...], record: IndexedRow) -> None:
        self._state.stored += 1
        self._state.history[key] = (*old, _Version(record, self._state.stored))

    def _before(self, row: Row) -> tuple[_Key, tuple[_Version, ...]]:
        key = row.type, row.id
        old = self._state.history.get(key, ())
        if row.version != (old[-1].row.version if old else 0) + 1:
            raise Problem("conflict", "The resource was changed at the same time.")
        return key, old

    async def relabel(self, record: IndexedRow) -> None:
        row = record.row
        old = self._state.history.get((row.type, row.id), ())
        place = row.version - 1
        if not 0 <= place < len(old):
            raise Problem("conflict", "The resource was changed at the same time.")
        was = old[place].row
        row = msgspec.structs.replace(row, body=was.body, updated=was.updated, interaction=was.interaction)
        relabelled = _Version(IndexedRow(row, record.entries), old[place].stored)
        self._state.history[row.type, row.id] = (*old[:place], relabelled, *old[place + 1 :])

    async def referrers(self, target: str, params: frozenset[str] | None = None) -> tuple[Row, ...]:
        def refers(version: _Version) -> bool:
            type = version.row.type
            return any(
                entry.kind == "reference" and entry.value == (target,) and (params is None or f"{type}.{entry.param}" in params)
                for entry in version.record.entries
            )

        return tuple(versions[-1].row for versions in self._state.history.values() if any(map(refers, versions)))

    async def intern_class(self, key: str) -> int:
        return self._state.classes.setdefault(key, len(self._state.classes))

    async def advance_epoch(self, patient: str | None) -> None:
        self._state.epochs[patient] = self._state.epochs.get(patient, 0) + 1


class _KeyValues:
    def __init__(self, store: _Memory) -> None:
        self._store = store
        self.now: Callable[[], int] = system_now

    async def put_if_absent(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> bool:
        if await self.get(kind, key, self.now()) is not None:
            return False
        await self.put(kind, key, value, expires, family)
        return True

    async def get(self, kind: str, key: str, now: int) -> bytes | None:
        value, expires, _ = self._store.state.key_values.get((kind, key), (None, 0, ""))
        return value if expires > now else None

    async def pop(self, kind: str, key: str, now: int) -> bytes | None:
        value = await self.get(kind, key, now)
        self._store.state.key_values.pop((kind, key), None)
        return value

    async def put(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> None:
        self._store.state.key_values[kind, key] = value, expires, family

    async def delete_family(self, family: str) -> None:
        secrets = self._store.state.key_values
        self._store.state.key_values = {key: kept for key, kept in secrets.items() if not family or kept[2] != family}
        await _Transaction(self._store.state).advance_epoch(None)

    async def list_all(self, kind: str, now: int) -> tuple[tuple[str, bytes], ...]:
        secrets = self._store.state.key_values
        return tuple(sorted((key, value) for (of, key), (value, expires, _) in secrets.items() if of == kind and expires > now))

    async def purge(self, now: int) -> None:
        secrets = self._store.state.key_values
        self._store.state.key_values = {key: kept for key, kept in secrets.items() if kept[1] > now}


class _Memory:
    def __init__(self) -> None:
        self.state = _State()
        self.key_values = _KeyValues(self)

    async def prepare(self) -> None:
        """Nothing is needed."""

    def snapshot(self) -> AbstractAsyncContextManager[_Transaction]:
        return self._snapshot()

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[_Transaction]:
        yield _Transaction(self.state.copy())

    async def write(self, job: Callable[[Transaction], Awaitable[T]]) -> T:
        state = self.state.copy()
        result = await job(_Transaction(state))
        self.state = state
        return result

    async def append(self, journal: str, lines: Iterable[bytes]) -> None:
        self.state.journals.setdefault(journal, []).extend(lines)

    async def journal(self, journal: str, after: int = 0, limit: int = 1000) -> tuple[tuple[int, bytes], ...]:
        lines = self.state.journals.get(journal, [])
        return tuple(enumerate(lines, 1))[after : after + limit]

    async def close(self) -> None:
        """Nothing is kept open."""


def connect(url: str) -> _Memory:
    """A new, empty store.  Raises ValueError for anything after the scheme."""
    if url != "memory:":
        raise ValueError(f"The memory store's URL is 'memory:', not {url!r}.")
    return _Memory()
