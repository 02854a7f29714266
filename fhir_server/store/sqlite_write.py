"""Writing to the SQLite store, inside the writer's transaction."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from fhir_server.errors import Problem
from fhir_server.store import Record, Row
from fhir_server.store import sqlite_rows as rows_
from fhir_server.store.sqlite_read import READ, SqliteSnapshot
from fhir_server.store.sqlite_rows import COLUMNS, KINDS, TABLES, IndexRows
from fhir_server.store.sqlite_schema import PATIENT_BITS

_SEQUENCE: Final = (1 << PATIENT_BITS) - 1
_CHUNK: Final = 64  # index rows in one statement: each statement hands the GIL over and back

_STORED: Final = "SELECT r.rid, r.version, b.entries FROM res r, body b WHERE r.type = ? AND r.id = ? AND b.rid = r.rid"
_LAST: Final = "SELECT rid, version FROM past WHERE type = ? AND id = ? ORDER BY version DESC LIMIT 1"
_DELETION: Final = (
    "SELECT rid, version, updated, vclass, release_at, interaction, extra, body FROM past"
    " WHERE type = ? AND id = ? ORDER BY version DESC LIMIT 1"
)
_KEEP: Final = (
    "INSERT INTO past(rid, type, id, version, updated, vclass, release_at, interaction, extra, body, entries)"
    " SELECT r.rid, type, id, version, updated, vclass, release_at, interaction, extra, body, entries"
    " FROM res r, body b WHERE r.rid = ? AND b.rid = r.rid"
)
_REFERRERS: Final = f"SELECT t.text, r.id, {COLUMNS} FROM res r, name t WHERE t.n = r.type AND r.rid IN (%s) ORDER BY r.rid"


class SqliteTransaction(SqliteSnapshot):
    """See :class:`fhir_server.store.Transaction`."""

    _began = _sequence = 0

    def _do(self, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, args).fetchall()

    async def current(self, type: str, id: str) -> Row | None:
        key = self.names.number("type:" + type), id
        found = self.rows(READ, key) or self.rows(_DELETION, key)
        return rows_.row(type, id, found[0], self.names) if found else None

    async def put(self, record: Record) -> None:
        row = record.row
        type = self.names.intern("type:" + row.type)
        entries = rows_.index_rows(row.type, record.entries, self.names)
        stored = self._do(_STORED, (type, row.id))
        if not stored:
            self._first(type, row, entries)
            return
        rid, version, was = stored[0]
        _follows(row, version)
        self.connection.execute(_KEEP, (rid,))
        self._replace(rid, row, entries, rows_.unpacked(was), row.body)

    def _first(self, type: int, row: Row, entries: IndexRows) -> None:
        last = self._do(_LAST, (type, row.id))
        _follows(row, last[0][1] if last else 0)
        rid = self._place(row, last[0][0] & _SEQUENCE if last else self._next())
        self.connection.execute("INSERT INTO res VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (rid, type, row.id, *_columns(row)))
        self.connection.execute("INSERT INTO body VALUES (?, ?, ?)", (rid, row.body, rows_.packed(entries)))
        self._others(rid, row)
        self._index(rid, entries)

    def _replace(self, rid: int, row: Row, entries: IndexRows, was: IndexRows, body: bytes) -> None:
        place = self._place(row, rid & _SEQUENCE)
        set_ = "rid = ?, version = ?, updated = ?, vclass = ?, release_at = ?, interaction = ?, extra = ?"
        self.connection.execute(f"UPDATE res SET {set_} WHERE rid = ?", (place, *_columns(row), rid))
        self.connection.execute("UPDATE body SET rid = ?, body = ?, entries = ? WHERE rid = ?", (place, body, rows_.packed(entries), rid))
        self.connection.execute("DELETE FROM also WHERE rid = ?", (rid,))
        self._others(place, row)
        if place != rid:  # it became another patient's
            self._unindex(rid, was)
            self._index(place, entries)
            return
        for kind, old, new in zip(KINDS, was, entries, strict=True):
            before, now = set(old), set(new)
            self._delete(rid, kind, before - now)
            self._insert(rid, kind, list(now - before))

    async def drop(self, row: Row) -> None:
        type = self.names.intern("type:" + row.type)
        stored = self._do(_STORED, (type, row.id))
        if not stored:
            raise Problem("conflict", "There is no current version.")
        rid, version, entries = stored[0]
        _follows(row, version)
        self.connection.execute(_KEEP, (rid,))
        deletion = msgspec.structs.replace(row, interaction="delete")
        place = self._place(row, rid & _SEQUENCE)
        values = (place, type, row.id, *_columns(deletion), b"", entries)
        self.connection.execute(
            "INSERT INTO past(rid, type, id, version, updated, vclass, release_at, interaction, extra, body, entries)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        for table in ("res", "body", "also"):
            self.connection.execute(f"DELETE FROM {table} WHERE rid = ?", (rid,))
        self._unindex(rid, rows_.unpacked(entries))

    async def relabel(self, record: Record) -> None:
        row = record.row
        type = self.names.intern("type:" + row.type)
        stored = self._do(_STORED, (type, row.id))
        if not stored or stored[0][1] != row.version:
            raise Problem("conflict", "The resource was changed at the same time.")
        rid, _, was = stored[0]
        kept = self._do(f"SELECT {COLUMNS} FROM res r WHERE r.rid = ?", (rid,))
        old = rows_.row(row.type, row.id, kept[0], self.names)
        entries = rows_.index_rows(row.type, record.entries, self.names)
        same = msgspec.structs.replace(row, updated=old.updated, interaction=old.interaction)
        self._replace(rid, same, entries, rows_.unpacked(was), old.body)

    async def referrers(self, target: str, params: frozenset[str] | None = None) -> tuple[Row, ...]:
        inner = "SELECT rid FROM ref WHERE target = ?"
        args: tuple[Any, ...] = (target,)
        if params is not None:
            numbers = [self.names.number("reference:" + param) for param in sorted(params)]
            inner += f" AND param IN ({', '.join('?' * len(numbers))})"
            args = (target, *numbers)
        found = self.rows(_REFERRERS % inner, args)
        return tuple([rows_.row(values[0].removeprefix("type:"), values[1], values[2:], self.names) for values in found])

    async def intern(self, key: str) -> int:
        known = self.connection.execute("SELECT n FROM class WHERE key = ?", (key,)).get
        if known is None:
            sql = "INSERT INTO class(n, key) VALUES ((SELECT coalesce(max(n) + 1, 0) FROM class), ?) RETURNING n"
            known = self.connection.execute(sql, (key,)).get
        return int(known)

    async def bump(self, patient: str | None) -> None:
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


def _columns(row: Row) -> tuple[Any, ...]:
    interaction = rows_.INTERACTIONS.index(row.interaction)
    return row.version, row.updated, row.vclass, row.release_at, interaction, rows_.extra(row)


def _follows(row: Row, version: int) -> None:
    if row.version != version + 1:
        raise Problem("conflict", "The resource was changed at the same time.")
