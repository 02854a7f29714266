"""Writing to the SQLite store, inside the writer's transaction."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import apsw
import msgspec

from fhir_server.errors import Problem
from fhir_server.store import IndexedRow, Row, row_order
from fhir_server.store.sqlite import rows as rows_
from fhir_server.store.sqlite.reader import READ, SqliteSnapshot
from fhir_server.store.sqlite.rows import COLUMNS, KINDS, TABLES, IndexRows
from fhir_server.store.sqlite.schema import PATIENT_BITS, SEQUENCE

_CHUNK: Final = 64  # index rows in one statement: each statement hands the GIL over and back

_STORED: Final = f"SELECT {COLUMNS}, b.entries FROM res r, body b WHERE r.type = ? AND r.id = ? AND b.rid = r.rid"
_VERSIONS: Final = "SELECT rid, version, updated, vclass, release_at, interaction, extra, %s FROM past WHERE type = ? AND id = ?"
_PAST: Final = _VERSIONS % "body" + " ORDER BY version"
_DELETION: Final = _PAST + " DESC LIMIT 1"
_CHAIN: Final = _VERSIONS % "x''" + " ORDER BY version"
_ONE_PAST: Final = _VERSIONS % "x'', n, entries" + " AND version = ?"
_KEEP: Final = (
    "INSERT INTO past(rid, type, id, version, updated, vclass, release_at, interaction, extra, body, entries)"
    " SELECT r.rid, type, id, version, updated, vclass, release_at, interaction, extra, body, entries"
    " FROM res r, body b WHERE r.rid = ? AND b.rid = r.rid"
)
_INSERT: Final = "INSERT INTO res VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_FIRST: Final = (
    "INSERT INTO res SELECT ?, ?2, ?3, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM past WHERE type = ?2 AND id = ?3)"
)
_CHANGED: Final = "The resource was changed at the same time."
_REFERRERS: Final = f"SELECT t.text, r.id, {COLUMNS} FROM res r, name t WHERE t.n = r.type AND r.rid IN (%s) ORDER BY r.rid"
_ONCE_REFERRERS: Final = "SELECT DISTINCT t.text, p.id FROM past p, name t WHERE t.n = p.type AND p.n IN (SELECT -rid FROM (%s))"
_REMEMBER: Final = "INSERT OR IGNORE INTO ref(rid, param, target, vclass) VALUES (?, ?, ?, ?)"
_REFERENCE: Final = KINDS.index("reference")
_NOTHING: Final[IndexRows] = tuple([] for _ in KINDS)


class _Stored(NamedTuple):
    """A current version as it stands; ``own``: when it was stored, which its place need not say."""

    rid: int
    row: Row
    own: int
    entries: IndexRows


class SqliteTransaction(SqliteSnapshot):
    """See :class:`fhir_server.store.Transaction`."""

    _began = _sequence = 0

    def _do(self, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, args).fetchall()

    async def prefetch(self, names: Iterable[str]) -> None:
        """Nothing is gained by asking before."""

    async def read_unfiltered(self, type: str, id: str) -> Row | None:
        key = self.names.number("type:" + type), id
        found = self.rows(READ, key) or self.rows(_DELETION, key)
        return rows_.row(type, id, found[0], self.names) if found else None

    async def read_past_unfiltered(self, type: str, id: str) -> tuple[Row, ...]:
        key = self.names.number("type:" + type), id
        found = self.rows(_PAST, key)
        earlier = found if self.rows("SELECT 1 FROM res WHERE type = ? AND id = ?", key) else found[:-1]
        return tuple([rows_.row(type, id, values, self.names) for values in earlier])

    async def put(self, record: IndexedRow) -> None:
        row = record.row
        type = self.names.intern("type:" + row.type)
        entries = rows_.index_rows(row.type, record.entries, self.names)
        stored = self._stored(type, row) if row.version != 1 else None
        if stored is None:
            self._first(type, row, entries)
            return
        _follows(row, stored.row.version)
        number = self._kept(stored.rid)
        self._remember(number, stored.entries, entries)
        own = self._next()
        same = (row.class_id, row.release_at, row.patients) == (stored.row.class_id, stored.row.release_at, stored.row.patients)
        self._replace(stored, row, entries, stored.rid & SEQUENCE if same else self._stands(type, row, own), own)

    def _stored(self, type: int, row: Row) -> _Stored | None:
        """What stands under the type and id of ``row``."""
        found = self._do(_STORED, (type, row.id))
        if not found:
            return None
        *values, entries = found[0]
        own = rows_.stored(values[0], values[6])
        return _Stored(values[0], rows_.row(row.type, row.id, tuple(values), self.names), own, rows_.unpacked(entries))

    def _first(self, type: int, row: Row, entries: IndexRows) -> None:
        last = self._do(_DELETION, (type, row.id)) if row.version != 1 else []
        if row.version != 1:
            _follows(row, last[0][1] if last else 0)
        own = self._next()
        sequence = self._stands(type, row, own) if last else own
        rid = self._place(row, sequence)
        values = (rid, type, row.id, *_columns(row, own if own != sequence else 0))
        self._new(_INSERT if row.version != 1 else _INSERT_FIRST, values)
        self.connection.execute("INSERT INTO body VALUES (?, ?, ?)", (rid, row.body, rows_.packed(entries)))
        self._others(rid, row)
        self._index(rid, entries)

    def _new(self, sql: str, values: tuple[Any, ...]) -> None:
        """A row where none is; of a first version SQLite itself looks whether there was one."""
        try:
            self.connection.execute(sql, values)
        except apsw.ConstraintError:
            raise Problem("conflict", _CHANGED) from None
        if not self.connection.changes():
            raise Problem("conflict", _CHANGED)

    def _stands(self, type: int, row: Row, own: int) -> int:
        """When the row of this current version, which was stored at ``own``, was stored by the meaning of places."""
        found = self._do(_CHAIN, (type, row.id))
        chain = [(rows_.row(row.type, row.id, values, self.names), rows_.stored(values[0], values[6])) for values in found]
        return row_order.first([*chain, (row, own)])

    def _kept(self, rid: int) -> int:
        """Keep the current version among the past ones; its number there."""
        self.connection.execute(_KEEP, (rid,))
        return self.connection.last_insert_rowid()

    def _remember(self, number: int, was: IndexRows, now: IndexRows = _NOTHING) -> None:
        """Keep those references of the past version ``number`` that the current one has no more; for :meth:`referrers`."""
        standing = {row[:-1] for row in now[_REFERENCE]}
        lost = [row for row in was[_REFERENCE] if row[:-1] not in standing]
        if lost:
            self.connection.executemany(_REMEMBER, [(-number, *row) for row in lost])

    def _replace(self, stored: _Stored, row: Row, entries: IndexRows, sequence: int, own: int) -> None:
        """Put ``row``, which was stored at ``own``, where another stood, to stand at ``sequence`` among its patient's rows."""
        rid, was = stored.rid, stored.entries
        place = self._place(row, sequence)
        set_ = "rid = ?, version = ?, updated = ?, vclass = ?, release_at = ?, interaction = ?, extra = ?"
        self.connection.execute(f"UPDATE res SET {set_} WHERE rid = ?", (place, *_columns(row, own if own != sequence else 0), rid))
        self.connection.execute(
            "UPDATE body SET rid = ?, body = ?, entries = ? WHERE rid = ?", (place, row.body, rows_.packed(entries), rid)
        )
        self.connection.execute("DELETE FROM also WHERE rid = ?", (rid,))
        self._others(place, row)
        if place != rid:
            self._unindex(rid, was)
            self._index(place, entries)
            return
        for kind, old, new in zip(KINDS, was, entries, strict=True):
            before, now = set(old), set(new)
            self._delete(rid, kind, before - now)
            self._insert(rid, kind, list(now - before))

    async def delete(self, row: Row) -> None:
        type = self.names.intern("type:" + row.type)
        stored = self._stored(type, row)
        if stored is None:
            raise Problem("conflict", "There is no current version.")
        _follows(row, stored.row.version)
        rid = stored.rid
        self._remember(self._kept(rid), stored.entries)
        deletion = msgspec.structs.replace(row, interaction="delete")
        values = (self._place(row, self._next()), type, row.id, *_columns(deletion), b"", rows_.packed(stored.entries))
        self.connection.execute(
            "INSERT INTO past(rid, type, id, version, updated, vclass, release_at, interaction, extra, body, entries)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        for table in ("res", "body", "also"):
            self.connection.execute(f"DELETE FROM {table} WHERE rid = ?", (rid,))
        self._unindex(rid, stored.entries)

    async def relabel(self, record: IndexedRow) -> None:
        row = record.row
        type = self.names.intern("type:" + row.type)
        entries = rows_.index_rows(row.type, record.entries, self.names)
        stored = self._stored(type, row)
        if stored is None or row.version != stored.row.version:
            self._relabel_past(type, row, entries)
            if stored is not None:
                self._settle(type, stored, stored.row, stored.entries)
            return
        if row.version > 1:
            self._remember(self._do("SELECT max(n) FROM past WHERE type = ? AND id = ?", (type, row.id))[0][0], stored.entries, entries)
        old = stored.row
        self._settle(type, stored, msgspec.structs.replace(row, updated=old.updated, interaction=old.interaction, body=old.body), entries)

    def _relabel_past(self, type: int, row: Row, entries: IndexRows) -> None:
        found = self._do(_ONE_PAST, (type, row.id, row.version))
        if not found:
            raise Problem("conflict", _CHANGED)
        rid, *_, extra, _, number, _ = found[0]
        self._remember(number, entries)
        values = (self._place(row, rows_.stored(rid, extra)), row.class_id, row.release_at, rows_.extra(row), rows_.packed(entries), number)
        self.connection.execute("UPDATE past SET rid = ?, vclass = ?, release_at = ?, extra = ?, entries = ? WHERE n = ?", values)

    def _settle(self, type: int, stored: _Stored, row: Row, entries: IndexRows) -> None:
        """Make ``row`` the current version, which it was before it, or versions before it, were labelled afresh."""
        self._replace(stored, row, entries, self._stands(type, row, stored.own), stored.own)

    async def referrers(self, target: str, params: frozenset[str] | None = None) -> tuple[Row, ...]:
        inner = "SELECT rid FROM ref WHERE target = ?"  # below 0: minus the number of a past version
        args: tuple[Any, ...] = (target,)
        if params is not None:
            numbers = [self.names.number("reference:" + param) for param in sorted(params)]
            inner += f" AND param IN ({', '.join('?' * len(numbers))})"
            args = (target, *numbers)
        found = {(text, id): values for text, id, *values in self.rows(_REFERRERS % inner, args)}
        rows = [rows_.row(text.removeprefix("type:"), id, tuple(values), self.names) for (text, id), values in found.items()]
        for text, id in self.rows(_ONCE_REFERRERS % f"{inner} AND rid < 0", args):
            if (text, id) not in found and (row := await self.read_unfiltered(text.removeprefix("type:"), id)):
                rows.append(row)
        return tuple(rows)

    async def intern_class(self, key: str) -> int:
        return self.names.intern_class(key)

    async def advance_epoch(self, patient: str | None) -> None:
        if patient is None:
            self.connection.execute("UPDATE counter SET value = value + 1 WHERE name = 'security'")
        else:
            number = self.names.intern_patient(patient)
            self.connection.execute("UPDATE patient SET stamp = stamp + 1 WHERE n = ?", (number,))

    def begin(self) -> None:
        """Start a transaction that other processes' writers wait for."""
        self.connection.execute("BEGIN IMMEDIATE")
        self._began = self._sequence = int(self.connection.execute("SELECT value FROM counter WHERE name = 'sequence'").get)

    def commit(self) -> None:
        """Make all of it visible, and durable."""
        if self._sequence != self._began:
            self.connection.execute("UPDATE counter SET value = ? WHERE name = 'sequence'", (self._sequence,))
        self.connection.execute("COMMIT")

    def _next(self) -> int:
        self._sequence += 1  # of a job that is undone the number is not used again, which leaves a gap and no harm
        return self._sequence

    def _place(self, row: Row, sequence: int) -> int:
        patient = self.names.intern_patient(row.patients[0]) if row.patients else 0
        return patient << PATIENT_BITS | sequence

    def _others(self, rid: int, row: Row) -> None:
        for patient in row.patients[1:]:
            number = self.names.intern_patient(patient)
            self.connection.execute("INSERT OR IGNORE INTO also VALUES (?, ?)", (number, rid))

    def _index(self, rid: int, entries: IndexRows) -> None:
        for kind, rows in zip(KINDS, entries, strict=True):
            self._insert(rid, kind, rows)

    def _insert(self, rid: int, kind: str, rows: list[Any]) -> None:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            values: list[Any] = []
            for row in chunk:
                values.append(rid)
                values.extend(row)
            self.connection.execute(_inserting(kind, len(chunk)), values)

    def _delete(self, rid: int, kind: str, rows: set[Any]) -> None:
        table, columns = TABLES[kind]
        same = " AND ".join([f"{column} = ?" for column in columns])
        for row in rows:
            self.connection.execute(f"DELETE FROM {table} WHERE rid = ? AND {same}", (rid, *row))

    def _unindex(self, rid: int, entries: IndexRows) -> None:
        for (table, _), rows in zip(TABLES.values(), entries, strict=True):
            if rows:
                self.connection.execute(f"DELETE FROM {table} WHERE rid = ?", (rid,))


@lru_cache(5 * _CHUNK)
def _inserting(kind: str, rows: int) -> str:
    table, columns = TABLES[kind]
    one = f"(?{', ?' * len(columns)})"
    # OR FAIL: a row that fails ends the job anyway, and to undo a statement's other rows SQLite would keep a journal
    return f"INSERT OR FAIL INTO {table}(rid, {', '.join(columns)}) VALUES {', '.join([one] * rows)}"


def _columns(row: Row, stored: int = 0) -> tuple[Any, ...]:
    interaction = rows_.INTERACTIONS.index(row.interaction)
    return row.version, row.updated, row.class_id, row.release_at, interaction, rows_.extra(row, stored)


def _follows(row: Row, version: int) -> None:
    if row.version != version + 1:
        raise Problem("conflict", _CHANGED)
