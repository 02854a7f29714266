"""Logs in SQLite: lines are numbered in the order of their commits, in whichever process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import apsw

from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.store.logs import HEAD, NOT_FIRST, LinkEntries, LogEntry, PurgedLine

if TYPE_CHECKING:
    from fhir_server.store.sqlite.reader import SqliteSnapshot
    from fhir_server.store.sqlite.transaction import SqliteTransaction

_CHUNK: Final = 64  # rows in one statement, because each statement releases and takes the GIL
_HEAD: Final = "SELECT value FROM secret WHERE kind = ? AND key = ?"
_SET_HEAD: Final = "INSERT OR REPLACE INTO secret VALUES (?, ?, ?, ?, '')"
_FIRST: Final = "SELECT n FROM journal WHERE journal = ? ORDER BY n LIMIT ?"
_LINES: Final = "SELECT n, line FROM journal WHERE journal = (SELECT n FROM name WHERE text = ?) AND n < ? ORDER BY n DESC LIMIT ?"
_LINES_OF_KEY: Final = (
    "SELECT j.n, j.line FROM log_key k, journal j WHERE k.journal = (SELECT n FROM name WHERE text = ?) AND k.key = ? AND k.n < ?"
    " AND j.n = k.n ORDER BY k.n DESC LIMIT ?"
)


def append(transaction: SqliteSnapshot, logged: Iterable[tuple[str, LogEntry, LinkEntries]]) -> None:
    """Append these entries to their logs.  Raises what their functions raise."""
    groups: dict[tuple[str, LinkEntries], list[LogEntry]] = {}
    for log, entry, link in logged:
        groups.setdefault((log, link), []).append(entry)
    for (log, link), entries in groups.items():
        _append(transaction, log, entries, link)


def _append(transaction: SqliteSnapshot, log: str, entries: list[LogEntry], link: LinkEntries) -> None:
    connection, number = transaction.connection, transaction.names.intern("journal:" + log)
    head: bytes | None = connection.execute(_HEAD, (HEAD, log)).get
    lines, new_head = link(head, entries)
    _insert(connection, "journal(journal, line)", "(?, ?)", [(number, line) for line in lines])
    first = connection.last_insert_rowid() - len(lines) + 1  # AUTOINCREMENT: no other transaction numbers lines meanwhile
    keys = [(number, key, n) for n, entry in enumerate(entries, first) for key in dict.fromkeys(entry.keys)]
    _insert(connection, "log_key", "(?, ?, ?)", keys)
    if new_head is not None and new_head != head:
        connection.execute(_SET_HEAD, (HEAD, log, new_head, MAX_INSTANT))


def _insert(connection: apsw.Connection, table: str, row: str, rows: list[tuple[Any, ...]]) -> None:
    """Insert rows in order.  ``row``: the placeholders of one.  If one fails, the transaction must be rolled back."""
    whole = len(rows) - len(rows) % _CHUNK
    for start in range(0, whole, _CHUNK):
        values = [value for one in rows[start : start + _CHUNK] for value in one]
        connection.execute(f"INSERT OR FAIL INTO {table} VALUES {', '.join([row] * _CHUNK)}", values)
    if whole < len(rows):
        connection.executemany(f"INSERT OR FAIL INTO {table} VALUES {row}", rows[whole:])


def purge(transaction: SqliteTransaction, log: str, purged: Sequence[PurgedLine]) -> None:
    """Remove the first lines of a log, and overwrite them.  Raises Problem ``conflict`` if its first lines are not exactly these."""
    number, connection = transaction.names.intern("journal:" + log), transaction.connection
    first = connection.execute(_FIRST, (number, len(purged))).fetchall()
    if [n for (n,) in first] != [line.number for line in purged]:
        raise Problem("conflict", NOT_FIRST)
    connection.execute("PRAGMA secure_delete = ON").fetchall()
    connection.executemany("DELETE FROM journal WHERE n = ?", first)
    keys = [(number, key, line.number) for line in purged for key in line.keys]
    if keys:
        connection.executemany("DELETE FROM log_key WHERE journal = ? AND key = ? AND n = ?", keys)


def lines_before(snapshot: SqliteSnapshot, log: str, key: str | None, before: int, limit: int) -> tuple[tuple[int, bytes], ...]:
    """See :meth:`fhir_server.store.Snapshot.log_lines_unfiltered`."""
    name = "journal:" + log
    rows = snapshot.rows(_LINES, (name, before, limit)) if key is None else snapshot.rows(_LINES_OF_KEY, (name, key, before, limit))
    return tuple((n, line) for n, line in rows)
