"""The SQLite store, which is the default.  URL ``sqlite:///relative/path`` or ``sqlite:////absolute/path``.

Reads run on the calling thread, each snapshot on its own connection (8 µs; another thread would cost ten times that), except
for those that take long (:mod:`~fhir_server.store.sqlite.long_reads`).
Writes go through :mod:`~fhir_server.store.sqlite.writer`.  Any number of processes may share the file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from fhir_server import budget
from fhir_server.store import Transaction
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.key_value import SqliteKeyValues
from fhir_server.store.sqlite.long_reads import LongReads, ReadingSnapshot
from fhir_server.store.sqlite.reader import SECONDS
from fhir_server.store.sqlite.schema import open_connection, prepare
from fhir_server.store.sqlite.writer import Job, Writer, as_plain_job

T = TypeVar("T")
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

    def __init__(self, path: Path, *, seconds: float = SECONDS) -> None:
        prepare(path)
        self._path = path
        self._seconds = seconds
        self._writer = Writer(path)
        self._long_reads = LongReads()
        self._idle: list[ReadingSnapshot] = []
        self._names: Names | None = None
        self.key_values = SqliteKeyValues(self.rows, self.run)

    async def prepare(self) -> None:
        """Do nothing: the constructor prepares the file."""

    def snapshot(self) -> _BorrowedSnapshot:
        return _BorrowedSnapshot(self)

    def borrow_snapshot(self) -> ReadingSnapshot:
        """Return an idle snapshot, or a new one if none is idle.  Give it back with :meth:`return_snapshot`."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._open_snapshot()

    def _open_snapshot(self) -> ReadingSnapshot:
        connection = open_connection(self._path, reading=True)
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
        result: T = await self._writer.run(budget.on_account(as_plain_job(job)))
        return result

    async def run(self, job: Job) -> Any:
        """Run a plain function in a transaction of the writer."""
        return await self._writer.run(job)

    async def append_log(self, log: str, lines: Iterable[bytes]) -> None:
        appended = list(lines)

        def job(transaction: Any) -> None:
            number = transaction.names.intern("journal:" + log)
            rows = [(number, line) for line in appended]
            transaction.connection.executemany("INSERT INTO journal(journal, line) VALUES (?, ?)", rows)

        await self.run(job)

    async def read_log(self, log: str, after: int = 0, limit: int = 1000) -> tuple[tuple[int, bytes], ...]:
        sql = "SELECT n, line FROM journal WHERE journal = (SELECT n FROM name WHERE text = ?) AND n > ? ORDER BY n LIMIT ?"
        return tuple((n, line) for n, line in self.rows(sql, ("journal:" + log, after, limit)))

    async def close(self) -> None:
        self._long_reads.close()
        self._writer.close()
        for snapshot in self._idle:
            snapshot.connection.close()
        self._idle.clear()


def connect(url: str) -> SqliteStore:
    """Return the store in the file that the URL names.  Create the file if it does not exist.

    Raises ValueError for a URL without a path and for a file that is not such a store, OSError if it cannot be opened.
    """
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or not path:
        raise ValueError(f"A SQLite store's URL is 'sqlite:///path', not {url!r}.")
    return SqliteStore(Path(path))
