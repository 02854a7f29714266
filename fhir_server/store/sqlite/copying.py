"""The SQLite store as a source for a copy of the whole store."""

from __future__ import annotations

from typing import Any, Final

from fhir_server.store import IndexedRow
from fhir_server.store.copying import KeyValue, ResourceHistory, Version
from fhir_server.store.sqlite import SqliteStore
from fhir_server.store.sqlite import rows as rows_
from fhir_server.store.sqlite.reader import SqliteSnapshot

_TYPES: Final = "SELECT substr(text, 6), n FROM name WHERE text > 'type:' AND text < 'type;' AND substr(text, 6) >= ? ORDER BY text"
_IDS: Final = (
    "SELECT id FROM (SELECT id FROM res WHERE type = ?1 AND id > ?2 ORDER BY id LIMIT ?3)"
    " UNION SELECT id FROM (SELECT DISTINCT id FROM past WHERE type = ?1 AND id > ?2 ORDER BY id LIMIT ?3) ORDER BY id LIMIT ?3"
)
_PAST: Final = (
    "SELECT rid, version, updated, vclass, release_at, interaction, extra, body, entries FROM past"
    " WHERE type = ? AND id = ? ORDER BY version"
)
_CURRENT: Final = f"SELECT {rows_.COLUMNS}, (SELECT entries FROM body WHERE rid = r.rid) FROM res r WHERE r.type = ? AND r.id = ?"
_SECRETS: Final = "SELECT kind, key, value, expires, family FROM secret WHERE (kind, key) > (?, ?) ORDER BY kind, key LIMIT ?"
_LARGE: Final = (
    "SELECT type, id FROM past WHERE length(body) >= ? UNION SELECT r.type, r.id FROM body b, res r"
    " WHERE length(b.body) >= ? AND r.rid = b.rid"
)
_COUNT: Final = "SELECT count(*) FROM (SELECT type, id FROM res UNION SELECT type, id FROM past)"


class _SqliteCopySource:
    """See :class:`fhir_server.store.copying.CopySource`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def classes(self) -> tuple[str, ...]:
        async with self._store.snapshot() as snapshot:
            return await snapshot.classes()

    async def histories(self, after: tuple[str, str], limit: int) -> tuple[ResourceHistory, ...]:
        async with self._store.snapshot() as snapshot:
            histories: list[ResourceHistory] = []
            last = after[1]
            for type, number in snapshot.rows(_TYPES, (after[0],)):
                for (id,) in snapshot.rows(_IDS, (number, last if type == after[0] else "", limit - len(histories))):
                    histories.append(_history(snapshot, type, number, id))
                if len(histories) == limit:
                    break
            return tuple(histories)

    async def large_resources(self, least: int) -> tuple[tuple[str, str], ...]:
        names = {number: type for type, number in self._store.rows(_TYPES, ("",))}
        return tuple(sorted([(names[number], id) for number, id in self._store.rows(_LARGE, (least, least))]))

    async def history(self, type: str, id: str) -> ResourceHistory:
        async with self._store.snapshot() as snapshot:
            return _history(snapshot, type, snapshot.names.number("type:" + type) or 0, id)

    async def key_values(self, after: tuple[str, str], limit: int) -> tuple[KeyValue, ...]:
        return tuple([KeyValue(*values) for values in self._store.rows(_SECRETS, (*after, limit))])

    async def log_names(self) -> tuple[str, ...]:
        sql = "SELECT substr(text, 9) FROM name WHERE text > 'journal:' AND text < 'journal;' ORDER BY text"
        return tuple([name for (name,) in self._store.rows(sql, ())])

    async def log_lines(self, log: str, after: int, limit: int) -> tuple[tuple[int, bytes], ...]:
        return await self._store.read_log(log, after, limit)

    async def count(self) -> int:
        return int(self._store.rows(_COUNT, ())[0][0])


def _history(snapshot: SqliteSnapshot, type: str, number: int, id: str) -> ResourceHistory:
    stored: list[tuple[Any, ...]] = [*snapshot.rows(_PAST, (number, id)), *snapshot.rows(_CURRENT, (number, id))]
    versions = []
    for values in stored:
        row = rows_.decode_row(type, id, values[:8], snapshot.names)
        indexed = IndexedRow(row, rows_.decode_entries(values[8], snapshot.names))
        versions.append(Version(indexed, rows_.decode_stored(values[0], values[6])))
    return ResourceHistory(type, id, tuple(versions))


def copy_source(store: SqliteStore) -> _SqliteCopySource:
    """Return the store as a source to copy from."""
    return _SqliteCopySource(store)
