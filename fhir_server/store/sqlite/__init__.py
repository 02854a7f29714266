"""The SQLite store, which is the default.  URL ``sqlite:///relative/path`` or ``sqlite:////absolute/path``.

Reads run on the calling thread, each snapshot on its own connection (8 µs; another thread would cost ten times that), except
for those that take long (:mod:`~fhir_server.store.sqlite.long_reads`).
Writes go through :mod:`~fhir_server.store.sqlite.writer`.  Any number of processes may share the file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import apsw

from fhir_server import budget
from fhir_server.store import LinkEntries, LogEntry, Transaction
from fhir_server.store.logs import PurgedLine, unlinked
from fhir_server.store.sqlite import logs
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.key_value import SqliteKeyValues
from fhir_server.store.sqlite.long_reads import LongReads, ReadingSnapshot
from fhir_server.store.sqlite.reader import SECONDS
from fhir_server.store.sqlite.schema import open_connection, prepare
from fhir_server.store.sqlite.transaction import SqliteTransaction
from fhir_server.store.sqlite.writer import Job, Writer, as_plain_job

T = TypeVar("T")
# _lastUpdated of current rows, which is rounded down to milliseconds and has an index; of the others, the newest one's time
_LATEST_TIME: Final = """
SELECT max(
  coalesce((SELECT max((SELECT max(hi) - 1000 FROM dat WHERE param = n)) FROM name WHERE text LIKE 'date:%._lastUpdated'), 0),
  coalesce((SELECT updated FROM past ORDER BY n DESC LIMIT 1), 0))
"""
_MAX_IDLE: Final = 8  # reading connections that stay open while idle


class _BorrowedSnapshot:
    """A context manager that borrows a snapshot of the store and returns it at the end."""

    __slots__ = ("_snapshot", "_store")

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def __aenter__(self) -> ReadingSnapshot:
        self._snapshot = self._store.borrow_snapshot()
        self._snapshot.connection.execute("BEGIN DEFERRED")
        return self._snapshot

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._snapshot.connection.execute("COMMIT")
        self._store.return_snapshot(self._snapshot)


class SqliteStore:
    """See :class:`fhir_server.store.Store`."""

    def __init__(self, path: Path, *, seconds: float = SECONDS, read_mode: str = "") -> None:
        """``read_mode``: parameters of SQLite's URI, to read an existing file without creating or changing anything."""
        if not read_mode:
            prepare(path)
        self._path = path
        self._seconds = seconds
        self._read_mode = read_mode
        self._writer = None if read_mode else Writer(path)
        self._long_reads = LongReads()
        self._idle: list[ReadingSnapshot] = []
        self._names: Names | None = None
        self.key_values = SqliteKeyValues(self.rows, self.run)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    async def prepare(self) -> None:
        """Do nothing: the constructor prepares the file."""

    async def latest_time(self) -> int:
        return int(self.rows(_LATEST_TIME, ())[0][0])

    def snapshot(self) -> _BorrowedSnapshot:
        return _BorrowedSnapshot(self)

    def borrow_snapshot(self) -> ReadingSnapshot:
        """Return an idle snapshot, or a new one if none is idle.  Give it back with :meth:`return_snapshot`."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._open_snapshot()

    def _open_snapshot(self) -> ReadingSnapshot:
        connection = open_connection(self._path, reading=True, mode=self._read_mode)
        names = Names(connection, self._names)
        self._names = self._names or names
        return ReadingSnapshot(connection, names, self._long_reads, seconds=self._seconds)

    def return_snapshot(self, snapshot: ReadingSnapshot) -> None:
        """Keep the snapshot for later use, or close it if enough are idle."""
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(snapshot)
        else:
            snapshot.connection.close()

    def rows(self, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Run one reading statement and return all its rows.  The statement is a snapshot by itself."""
        snapshot = self.borrow_snapshot()
        try:
            return snapshot.rows(sql, args)
        finally:
            self.return_snapshot(snapshot)

    async def write(self, job: Callable[[Transaction], Awaitable[T]]) -> T:
        result: T = await self.run(budget.on_account(as_plain_job(job)))
        return result

    async def run(self, job: Job) -> Any:
        """Run a plain function in a transaction of the writer."""
        if self._writer is None:
            raise RuntimeError("the store was opened for reading alone")
        return await self._writer.run(job)

    async def append_log(self, log: str, entries: Iterable[LogEntry], link: LinkEntries = unlinked) -> tuple[LogEntry, ...]:
        appended = list(entries)

        def job(transaction: SqliteTransaction) -> None:
            for entry in appended:
                transaction.log_at_commit(log, entry, link)

        await self.run(job)
        return ()

    async def purge_log(self, log: str, purged: Sequence[PurgedLine], entry: LogEntry, link: LinkEntries) -> None:
        def job(transaction: SqliteTransaction) -> None:
            logs.purge(transaction, log, purged)
            transaction.log_at_commit(log, entry, link)

        await self.run(job)

    async def pending_entries(self, log: str, after: str = "", limit: int = 1000) -> tuple[tuple[str, bytes], ...]:
        return ()  # a transaction appends its entries itself

    async def discard_pending(self, log: str, ids: Collection[str]) -> None:
        """Do nothing: there are none."""

    async def read_log(self, log: str, after: int = 0, limit: int = 1000) -> tuple[tuple[int, bytes], ...]:
        sql = "SELECT n, line FROM journal WHERE journal = (SELECT n FROM name WHERE text = ?) AND n > ? ORDER BY n LIMIT ?"
        return tuple((n, line) for n, line in self.rows(sql, ("journal:" + log, after, limit)))

    async def close(self) -> None:
        self._long_reads.close()
        if self._writer is not None:
            self._writer.close()
        for snapshot in self._idle:
            snapshot.connection.close()
        self._idle.clear()


def connect(url: str) -> SqliteStore:
    """Return the store in the file that the URL names.  Create the file if it does not exist.

    Raises ValueError for a URL without a path and for a file that is not such a store, OSError if it cannot be opened.
    """
    return SqliteStore(store_path(url))


def store_path(url: str) -> Path:
    """Return the path of the file that the URL names.  Raises ValueError for a URL without a path."""
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or not path:
        raise ValueError(f"A SQLite store's URL is 'sqlite:///path', not {url!r}.")
    return Path(path)


def explain_failure(error: Exception) -> str | None:
    """See :func:`fhir_server.store.explain_failure`."""
    return next((sentence for kind, sentence in _FAILURES if isinstance(error, kind)), None)


_FAILURES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (apsw.CorruptError, "The SQLite store is damaged. Restore a backup; `fhir-server doctor` says more."),
    (apsw.NotADBError, "The store's file is not an SQLite database."),
    (apsw.FullError, "The disk of the SQLite store is full."),
    (apsw.ReadOnlyError, "The SQLite store cannot be written to: check the rights on its file and its folder."),
    (apsw.CantOpenError, "The SQLite store cannot be opened: check the rights on its file and its folder."),
    (apsw.IOError, "The disk of the SQLite store reports an error."),
    (apsw.BusyError, "Another process is writing to the SQLite store; try again."),
    (apsw.SQLError, "The file has not the tables of this program's store."),
)
