"""Looks at a SQLite file without creating or changing anything.

SQLite creates its two side files when it opens a file in WAL mode, even for reading.  Without a write-ahead log nobody has
the file open, so it is opened as ``immutable`` then, which creates nothing.  If a process opens the file meanwhile,
:meth:`SqliteInspector.is_outdated` says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import apsw

from fhir_server.store.inspection import Identity
from fhir_server.store.sqlite import SqliteStore, explain_failure, store_path
from fhir_server.store.sqlite.schema import VERSION, open_connection

_OWN_TABLES: Final = frozenset({"counter", "name", "class", "patient", "res", "body", "past", "secret", "journal"})
_MOST: Final = 5  # damages that are reported
_WITHOUT_BODY: Final = "SELECT count(*) FROM res WHERE NOT EXISTS (SELECT 1 FROM body WHERE body.rid = res.rid)"
_NEWEST: Final = "SELECT max((SELECT coalesce(max(updated), 0) FROM res), (SELECT coalesce(max(updated), 0) FROM past))"


class SqliteInspector:
    """See :class:`fhir_server.store.inspection.Inspector`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._is_immutable = not self._log.exists()
        self._before = self._state()
        self._connection: apsw.Connection | None = None
        self._store: SqliteStore | None = None

    def _state(self) -> tuple[bool, int, int]:
        if not self._path.exists():
            return False, 0, 0
        found = self._path.stat()
        return self._log.exists(), found.st_size, found.st_mtime_ns

    @property
    def _mode(self) -> str:
        return "mode=ro&immutable=1" if self._is_immutable else "mode=ro"

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement.  Raises ValueError, with a message for the operator, for a file that cannot be read."""
        try:
            if self._connection is None:
                self._connection = open_connection(self._path, reading=True, mode=self._mode)
            return self._connection.execute(sql).fetchall()
        except apsw.Error as error:
            raise ValueError(explain_failure(error) or str(error)) from None

    async def identify(self) -> Identity:
        if not self._path.is_file():
            return Identity("missing", 0, VERSION)
        if self._path.stat().st_size == 0:
            return Identity("empty", 0, VERSION)
        tables = {name for (name,) in self._rows("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not tables:
            return Identity("empty", 0, VERSION)
        schema = int(self._rows("PRAGMA user_version")[0][0])
        is_own = tables >= _OWN_TABLES and schema > 0
        return Identity("present" if is_own else "foreign", schema, VERSION)

    async def find_damage(self, *, thorough: bool) -> tuple[str, ...]:
        try:
            check = "integrity_check" if thorough else "quick_check"
            found = [text for (text,) in self._rows(f"PRAGMA {check}({_MOST})") if text != "ok"]
            without_body = int(self._rows(_WITHOUT_BODY)[0][0]) if thorough and not found else 0
        except ValueError as error:
            return (str(error),)
        if without_body:
            found.append(f"{without_body} resources have lost their content.")
        return tuple([" ".join(text.split()) for text in found])

    async def count_resources(self) -> int:
        return int(self._rows("SELECT count(*) FROM res")[0][0])

    async def newest(self) -> int:
        return int(self._rows(_NEWEST)[0][0])

    def store(self) -> SqliteStore:
        if self._store is None:
            self._store = SqliteStore(self._path, read_mode=self._mode)
        return self._store

    def is_outdated(self) -> bool:
        return self._is_immutable and self._state() != self._before

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()
        if self._connection is not None:
            self._connection.close()


def inspector(url: str) -> SqliteInspector:
    """Return an inspector of the file that the URL names.  Raises ValueError for a URL without a path."""
    return SqliteInspector(store_path(url))
