"""Writes to the SQLite store, in the writer's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import apsw
import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.store import IndexedRow, LinkEntries, LogEntry, PermissionEpoch, Row, row_order
from fhir_server.store.logs import PendingRecord
from fhir_server.store.sqlite import changes, logs, purging, relations
from fhir_server.store.sqlite import rows as rows_
from fhir_server.store.sqlite.reader import READ, SqliteSnapshot
from fhir_server.store.sqlite.rows import BANDED, COLUMNS, KINDS, TABLES, IndexRows
from fhir_server.store.sqlite.schema import PATIENT_BITS, SEQUENCE

_CHUNK: Final = 64  # index rows in one statement, because each statement releases and takes the GIL

_STORED: Final = f"SELECT {COLUMNS}, b.entries FROM res r, body b WHERE r.type = ? AND r.id = ? AND b.rid = r.rid"
_VERSIONS: Final = "SELECT rid, version, updated, vclass, release_at, interaction, extra, %s FROM past WHERE type = ? AND id = ?"
_PAST: Final = _VERSIONS % "body" + " AND version BETWEEN ? AND ? ORDER BY version"
_DELETION: Final = _VERSIONS % "body" + " ORDER BY version DESC LIMIT 1"
_NEWEST_NUMBER: Final = (
    "SELECT max((SELECT coalesce(max(version), 0) FROM past WHERE type = ? AND id = ?),"
    " (SELECT coalesce(max(version), 0) FROM res WHERE type = ? AND id = ?))"
)
# the past versions with one class and release
_PAST_LABELS: Final = _VERSIONS % "x''" + " AND vclass = ? AND release_at = ? ORDER BY version"
_ONE_PAST: Final = _VERSIONS % "x'', n, entries" + " AND version = ?"
_ARCHIVE: Final = (
    "INSERT INTO past(rid, type, id, version, updated, vclass, release_at, interaction, extra, body, entries)"
    " SELECT r.rid, type, id, version, updated, vclass, release_at, interaction, extra, body, entries"
    " FROM res r, body b WHERE r.rid = ? AND b.rid = r.rid"
)
_INSERT: Final = "INSERT INTO res VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_FIRST: Final = (
    "INSERT INTO res SELECT ?, ?2, ?3, ?, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM past WHERE type = ?2 AND id = ?3)"
)
_CHANGED: Final = "The resource was changed at the same time."
_REFERRERS: Final = f"SELECT t.text, r.id, {COLUMNS} FROM res r, name t WHERE t.n = r.type AND r.rid IN (%s) ORDER BY r.rid"
_PAST_REFERRERS: Final = "SELECT DISTINCT t.text, p.id FROM past p, name t WHERE t.n = p.type AND p.n IN (SELECT -rid FROM (%s))"
_INSERT_REFERENCE: Final = "INSERT OR IGNORE INTO ref(rid, param, target, vclass) VALUES (?, ?, ?, ?)"
_REFERENCE: Final = KINDS.index("reference")
_NOTHING: Final[IndexRows] = tuple([] for _ in KINDS)


class _CurrentVersion(NamedTuple):
    """A current version.  ``stored`` is its own sequence number; its ``rid`` may have that of an earlier version."""

    rid: int
    row: Row
    stored: int
    entries: IndexRows


class SqliteTransaction(SqliteSnapshot):
    """See :class:`fhir_server.store.Transaction`."""

    _began = _sequence = 0
    logged: list[tuple[str, LogEntry, LinkEntries]]  # by the jobs of this transaction
    epochs: dict[str | None, PermissionEpoch]  # that this job has read: nobody else writes meanwhile

    async def permission_epoch(self, patient: str | None) -> PermissionEpoch:
        epoch = self.epochs.get(patient)
        if epoch is None:
            epoch = self.epochs[patient] = await super().permission_epoch(patient)
        return epoch

    def _query(self, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, args).fetchall()

    async def prefetch(self, names: Iterable[str]) -> None:
        """Do nothing: reading one row is as cheap."""

    async def read_unfiltered(self, type: str, id: str) -> Row | None:
        key = self.names.number("type:" + type), id
        found = self.rows(READ, key) or self.rows(_DELETION, key)
        return rows_.decode_row(type, id, found[0], self.names) if found else None

    async def read_past_unfiltered(self, type: str, id: str, first: int = 1, last: int | None = None) -> tuple[Row, ...]:
        key = self.names.number("type:" + type), id
        if last is None:
            ((newest,),) = self.rows(_NEWEST_NUMBER, key * 2)
            last = (newest or 0) - 1
        return tuple([rows_.decode_row(type, id, values, self.names) for values in self.rows(_PAST, (*key, first, last))])

    async def put(self, indexed: IndexedRow) -> None:
        row = indexed.row
        type = self.names.intern("type:" + row.type)
        entries = rows_.index_rows(row.type, indexed.entries, self.names)
        current = self._load_current(type, row) if row.version != 1 else None
        if current is None:
            self._put_new(type, row, entries)
            return
        _require_next_version(row, current.row.version)
        number = self._archive_current(current.rid)
        self._keep_lost_references(number, current.entries, entries)
        stored = self._next_sequence()
        old = current.row
        has_same_view = (row.class_id, row.release_at, row.patients) == (old.class_id, old.release_at, old.patients)
        sequence = current.rid & SEQUENCE if has_same_view else self._first_stored(type, row, stored)
        self._replace_current(type, current, row, entries, sequence, stored)
        changes.add(self, type, row)

    def _load_current(self, type: int, row: Row) -> _CurrentVersion | None:
        """Return the current version of the resource that ``row`` is a version of, or None."""
        found = self._query(_STORED, (type, row.id))
        if not found:
            return None
        *values, entries = found[0]
        stored = rows_.decode_stored(values[0], values[6])
        return _CurrentVersion(values[0], rows_.decode_row(row.type, row.id, tuple(values), self.names), stored, rows_.unpack(entries))

    def _put_new(self, type: int, row: Row, entries: IndexRows) -> None:
        last = self._query(_DELETION, (type, row.id)) if row.version != 1 else []
        if row.version != 1:
            _require_next_version(row, last[0][1] if last else 0)
        stored = self._next_sequence()
        sequence = self._first_stored(type, row, stored) if last else stored
        rid = self._rid(row, sequence)
        band = self.band(type, row)
        values = (rid, type, row.id, *_row_values(row, stored if stored != sequence else 0), band)
        self._insert_row(_INSERT if row.version != 1 else _INSERT_FIRST, values)
        self.connection.execute("INSERT INTO body VALUES (?, ?, ?)", (rid, row.body, rows_.pack(entries)))
        self._insert_other_patients(rid, band, row)
        self._index(rid, band, entries)
        changes.add(self, type, row)

    def _insert_row(self, sql: str, values: tuple[Any, ...]) -> None:
        """Insert a current version.  For a first version, the statement itself checks that there was none before."""
        try:
            self.connection.execute(sql, values)
        except apsw.ConstraintError:
            raise Problem("conflict", _CHANGED) from None
        if not self.connection.changes():
            raise Problem("conflict", _CHANGED)

    def _first_stored(self, type: int, row: Row, stored: int) -> int:
        """Return when the row counts as stored (:mod:`~fhir_server.store.row_order`); ``stored``: when this version was."""
        found = self._query(_PAST_LABELS, (type, row.id, row.class_id, row.release_at))
        chain = [(rows_.decode_row(row.type, row.id, values, self.names), rows_.decode_stored(values[0], values[6])) for values in found]
        return row_order.first_stored([*chain, (row, stored)])

    def _archive_current(self, rid: int) -> int:
        """Copy the current version to the past ones and return its number there."""
        self.connection.execute(_ARCHIVE, (rid,))
        return self.connection.last_insert_rowid()

    def _keep_lost_references(self, number: int, before: IndexRows, after: IndexRows = _NOTHING) -> None:
        """Store the references of the past version ``number`` that the current one no longer has.

        :meth:`referrers_unfiltered` finds past versions by them.
        """
        remaining = {row[:-1] for row in after[_REFERENCE]}
        lost = [row for row in before[_REFERENCE] if row[:-1] not in remaining]
        if lost:
            self.connection.executemany(_INSERT_REFERENCE, [(-number, *row) for row in lost])

    def _replace_current(self, type: int, current: _CurrentVersion, row: Row, entries: IndexRows, sequence: int, stored: int) -> None:
        """Replace the current version by ``row``, which was stored at ``stored`` and whose place is ``sequence``."""
        rid, old_entries = current.rid, current.entries
        new_rid = self._rid(row, sequence)
        band, old_band = self.band(type, row), self.band(type, current.row)
        set_ = "rid = ?, version = ?, updated = ?, vclass = ?, release_at = ?, interaction = ?, extra = ?, band = ?"
        self.connection.execute(
            f"UPDATE res SET {set_} WHERE rid = ?", (new_rid, *_row_values(row, stored if stored != sequence else 0), band, rid)
        )
        self.connection.execute(
            "UPDATE body SET rid = ?, body = ?, entries = ? WHERE rid = ?", (new_rid, row.body, rows_.pack(entries), rid)
        )
        self.connection.execute("DELETE FROM also WHERE rid = ?", (rid,))
        self._insert_other_patients(new_rid, band, row)
        if (new_rid, band) != (rid, old_band):
            self._unindex(rid, old_entries)
            self._index(new_rid, band, entries)
            return
        for kind, old, new in zip(KINDS, old_entries, entries, strict=True):
            removed, added = set(old) - set(new), set(new) - set(old)
            self._delete(rid, kind, removed)
            self._insert(rid, band, kind, list(added))

    async def delete(self, row: Row) -> None:
        type = self.names.intern("type:" + row.type)
        current = self._load_current(type, row)
        if current is None:
            raise Problem("conflict", "There is no current version.")
        _require_next_version(row, current.row.version)
        rid = current.rid
        self._keep_lost_references(self._archive_current(rid), current.entries)
        deletion = msgspec.structs.replace(row, interaction="delete")
        values = (self._rid(row, self._next_sequence()), type, row.id, *_row_values(deletion), b"", rows_.pack(current.entries))
        self.connection.execute(
            "INSERT INTO past(rid, type, id, version, updated, vclass, release_at, interaction, extra, body, entries)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        for table in ("res", "body", "also"):
            self.connection.execute(f"DELETE FROM {table} WHERE rid = ?", (rid,))
        self._unindex(rid, current.entries)
        changes.add(self, type, deletion)

    async def relabel(self, *versions: IndexedRow) -> None:
        newest = versions[-1].row
        type = self.names.intern("type:" + newest.type)
        current = self._load_current(type, newest)
        for indexed in versions:
            if current is None or indexed.row.version != current.row.version:
                self._relabel_past(type, indexed.row, rows_.index_rows(newest.type, indexed.entries, self.names))
        if current is not None and newest.version != current.row.version:
            self._relabel_current(type, current, current.row, current.entries)
        elif current is not None:
            self._relabel_newest(type, current, newest, rows_.index_rows(newest.type, versions[-1].entries, self.names))

    def _relabel_newest(self, type: int, current: _CurrentVersion, row: Row, entries: IndexRows) -> None:
        if row.version > 1:
            ((last_past,),) = self._query("SELECT max(n) FROM past WHERE type = ? AND id = ?", (type, row.id))
            if last_past is not None:  # else they are purged
                self._keep_lost_references(last_past, current.entries, entries)
        old = current.row
        relabeled = msgspec.structs.replace(row, updated=old.updated, interaction=old.interaction, body=old.body)
        self._relabel_current(type, current, relabeled, entries)
        self._move_change(type, old, relabeled)

    def _move_change(self, type: int, old: Row, new: Row) -> None:
        if (old.class_id, old.release_at, old.patients) != (new.class_id, new.release_at, new.patients):
            changes.remove(self, type, old)
            changes.add(self, type, msgspec.structs.replace(new, updated=old.updated))

    def _relabel_past(self, type: int, row: Row, entries: IndexRows) -> None:
        found = self._query(_ONE_PAST, (type, row.id, row.version))
        if not found:
            raise Problem("conflict", _CHANGED)
        rid, version, updated, class_id, release_at, _, extra, _, number, _ = found[0]
        self._keep_lost_references(number, entries)
        patients = rows_.decode_patients(rid, extra, self.names)
        self._move_change(type, Row(row.type, row.id, version, updated, patients, class_id, release_at, b""), row)
        values = (
            self._rid(row, rows_.decode_stored(rid, extra)),
            row.class_id,
            row.release_at,
            rows_.encode_extra(row),
            rows_.pack(entries),
            number,
        )
        self.connection.execute("UPDATE past SET rid = ?, vclass = ?, release_at = ?, extra = ?, entries = ? WHERE n = ?", values)

    def _relabel_current(self, type: int, current: _CurrentVersion, row: Row, entries: IndexRows) -> None:
        """Store the current version again after it, or a version before it, was relabeled."""
        self._replace_current(type, current, row, entries, self._first_stored(type, row, current.stored), current.stored)

    async def purge_versions_unfiltered(self, type: str, id: str, before: int) -> int:
        return purging.purge_versions(self, type, id, before)

    async def erase_unfiltered(self, type: str, id: str) -> int:
        self.connection.execute("PRAGMA secure_delete = ON").fetchall()  # overwrites what is deleted
        number = self.names.number("type:" + type)
        if number is None:
            return 0
        key = number, id
        changes.remove_versions(self, number, id)
        current = [rid for (rid,) in self._query("SELECT rid FROM res WHERE type = ? AND id = ?", key)]
        past = [-number for (number,) in self._query("SELECT n FROM past WHERE type = ? AND id = ?", key)]
        for rid in [*current, *past]:
            for table, _ in TABLES.values():
                self.connection.execute(f"DELETE FROM {table} WHERE rid = ?", (rid,))
        for rid in current:
            for table in ("body", "also", "res"):
                self.connection.execute(f"DELETE FROM {table} WHERE rid = ?", (rid,))
        self.connection.execute("DELETE FROM past WHERE type = ? AND id = ?", key)
        return len(current) + len(past)

    async def referrers_unfiltered(self, target: str, params: frozenset[str] | None = None, limit: int | None = None) -> tuple[Row, ...]:
        inner = "SELECT rid FROM ref WHERE target = ?"  # a negative rid is minus the number of a past version
        args: tuple[Any, ...] = (target,)
        if params is not None:
            numbers = [self.names.number("reference:" + param) for param in sorted(params)]
            inner += f" AND param IN ({', '.join('?' * len(numbers))})"
            args = (target, *numbers)
        if not self.rows(inner + " LIMIT 1", args):
            return ()
        most = -1 if limit is None else limit
        found = {(text, id): values for text, id, *values in self.rows(_REFERRERS % inner + " LIMIT ?", (*args, most))}
        rows = [rows_.decode_row(text.removeprefix("type:"), id, tuple(values), self.names) for (text, id), values in found.items()]
        for text, id in self.rows(_PAST_REFERRERS % f"{inner} AND band IS NULL AND rid < 0", args):
            if (text, id) not in found and (row := await self.read_unfiltered(text.removeprefix("type:"), id)):
                rows.append(row)
        return tuple(rows[:limit])

    async def referrer_names_unfiltered(
        self, targets: Collection[str], after: str = "", limit: int | None = None
    ) -> dict[str, tuple[str, ...]]:
        return relations.referrer_names(self, targets, after, limit)

    async def referred_names_unfiltered(self, names: Collection[str], params: frozenset[str]) -> frozenset[str]:
        return relations.referred_names(self, names, params)

    async def set_record(self, kind: str, key: str, value: bytes | None) -> None:
        if value is None:
            self.connection.execute("DELETE FROM secret WHERE kind = ? AND key = ?", (kind, key))
        else:
            self.connection.execute("INSERT OR REPLACE INTO secret VALUES (?, ?, ?, ?, '')", (kind, key, value, MAX_INSTANT))

    async def intern_class(self, key: str) -> int:
        number = self.names.intern_class(key)
        self.epochs = {patient: epoch for patient, epoch in self.epochs.items() if number < epoch.classes}
        return number

    async def advance_epoch(self, patient: str | None) -> None:
        self.epochs = {}
        if patient is None:
            self.connection.execute("UPDATE counter SET value = value + 1 WHERE name = 'security'")
        else:
            number = self.names.intern_patient(patient)
            self.connection.execute("UPDATE patient SET stamp = stamp + 1 WHERE n = ?", (number,))

    def begin(self) -> None:
        """Begin a transaction.  The writers of other processes wait until it ends."""
        self.connection.execute("BEGIN IMMEDIATE")
        self.logged = []
        self._began = self._sequence = int(self.connection.execute("SELECT value FROM counter WHERE name = 'sequence'").get)

    def log_at_commit(self, log: str, entry: LogEntry, link: LinkEntries, record: PendingRecord | None = None) -> None:
        self.logged.append((log, entry, link))

    def commit(self) -> None:
        """Append what was logged, and commit the transaction, durably."""
        if self.logged:
            logs.append(self, self.logged)
        if self._sequence != self._began:
            self.connection.execute("UPDATE counter SET value = ? WHERE name = 'sequence'", (self._sequence,))
        self.connection.execute("COMMIT")

    def _next_sequence(self) -> int:
        self._sequence += 1  # a job that is rolled back leaves a gap, which is harmless
        return self._sequence

    def _rid(self, row: Row, sequence: int) -> int:
        patient = self.names.intern_patient(row.patients[0]) if row.patients else 0
        return patient << PATIENT_BITS | sequence

    def band(self, type: int, row: Row) -> int:
        """Return the band of a version."""
        return self.names.intern_band(type, row.class_id, row.release_at > row.updated)

    def _insert_other_patients(self, rid: int, band: int, row: Row) -> None:
        for patient in row.patients[1:]:
            number = self.names.intern_patient(patient)
            self.connection.execute("INSERT OR IGNORE INTO also VALUES (?, ?, ?)", (number, band, rid))

    def _index(self, rid: int, band: int, entries: IndexRows) -> None:
        for kind, rows in zip(KINDS, entries, strict=True):
            self._insert(rid, band, kind, rows)

    def _insert(self, rid: int, band: int, kind: str, rows: list[Any]) -> None:
        has_band = kind in BANDED
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            values: list[Any] = []
            for row in chunk:
                values.append(rid)
                values.extend(row)
                if has_band:
                    values.append(band)
            self.connection.execute(_insert_statement(kind, len(chunk)), values)

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
def _insert_statement(kind: str, rows: int) -> str:
    table, columns = TABLES[kind]
    if kind in BANDED:
        columns = (*columns, "band")
    values = f"(?{', ?' * len(columns)})"
    # OR FAIL: a failing row ends the job anyway, and without it SQLite would keep a journal to undo the statement
    return f"INSERT OR FAIL INTO {table}(rid, {', '.join(columns)}) VALUES {', '.join([values] * rows)}"


def _row_values(row: Row, stored: int = 0) -> tuple[Any, ...]:
    interaction = rows_.INTERACTIONS.index(row.interaction)
    return row.version, row.updated, row.class_id, row.release_at, interaction, rows_.encode_extra(row, stored)


def _require_next_version(row: Row, version: int) -> None:
    if row.version != version + 1:
        raise Problem("conflict", _CHANGED)
