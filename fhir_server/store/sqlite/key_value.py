"""Key-value records in SQLite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from fhir_server.store import KeyValueRecord, system_now
from fhir_server.store.sqlite.writer import Job

_ReadRows = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]
_RunJob = Callable[[Job], Awaitable[Any]]


class SqliteKeyValues:
    """See :class:`fhir_server.store.KeyValueStore`.

    ``rows`` runs a reading statement, ``run`` a job in the writer.
    """

    def __init__(self, rows: _ReadRows, run: _RunJob) -> None:
        self._rows = rows
        self._run = run
        self.now: Callable[[], int] = system_now

    async def _execute(self, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = await self._run(lambda job: job.connection.execute(sql, args).fetchall())
        return rows

    async def put_if_absent(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> bool:
        sql = (
            "INSERT INTO secret VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value,"
            " expires = excluded.expires, family = excluded.family WHERE secret.expires <= ? RETURNING 1"
        )
        return bool(await self._execute(sql, (kind, key, value, expires, family, self.now())))

    async def get(self, kind: str, key: str, now: int) -> bytes | None:
        sql = "SELECT value FROM secret WHERE kind = ? AND key = ? AND expires > ?"
        return next((value for (value,) in self._rows(sql, (kind, key, now))), None)

    async def pop(self, kind: str, key: str, now: int) -> bytes | None:
        sql = "DELETE FROM secret WHERE kind = ? AND key = ? AND expires > ? RETURNING value"
        return next((value for (value,) in await self._execute(sql, (kind, key, now))), None)

    async def put(self, kind: str, key: str, value: bytes, expires: int, family: str = "") -> None:
        await self._execute("INSERT OR REPLACE INTO secret VALUES (?, ?, ?, ?, ?)", (kind, key, value, expires, family))

    async def exchange(self, kind: str, key: str, now: int, records: Sequence[KeyValueRecord]) -> bool:
        def job(transaction: Any) -> bool:
            removed = "DELETE FROM secret WHERE kind = ? AND key = ? AND expires > ? RETURNING 1"
            if not transaction.connection.execute(removed, (kind, key, now)).fetchall():
                return False
            transaction.connection.executemany("INSERT OR REPLACE INTO secret VALUES (?, ?, ?, ?, ?)", records)
            return True

        return bool(await self._run(job))

    async def replace_value(self, kind: str, key: str, old: bytes, new: bytes, expires: int | None = None) -> bool:
        sql = "UPDATE secret SET value = ?, expires = ifnull(?, expires) WHERE kind = ? AND key = ? AND value = ? RETURNING 1"
        return bool(await self._execute(sql, (new, expires, kind, key, old)))

    async def delete_family(self, family: str) -> None:
        def job(transaction: Any) -> None:
            transaction.connection.execute("DELETE FROM secret WHERE family = ? AND family <> ''", (family,))
            transaction.connection.execute("UPDATE counter SET value = value + 1 WHERE name = 'security'")

        await self._run(job)

    async def delete_kinds(self, kinds: Collection[str]) -> dict[str, int]:
        def job(transaction: Any) -> dict[str, int]:
            counts = {}
            for kind in kinds:
                transaction.connection.execute("DELETE FROM secret WHERE kind = ?", (kind,))
                counts[kind] = int(transaction.connection.changes())
            transaction.connection.execute("UPDATE counter SET value = value + 1 WHERE name = 'security'")
            return counts

        counts: dict[str, int] = await self._run(job)
        return counts

    async def list_all(self, kind: str, now: int) -> tuple[tuple[str, bytes], ...]:
        sql = "SELECT key, value FROM secret WHERE kind = ? AND expires > ? ORDER BY key"
        return tuple((key, value) for key, value in self._rows(sql, (kind, now)))

    async def list_family(self, kind: str, family: str, now: int) -> tuple[tuple[str, bytes], ...]:
        sql = (
            "SELECT key, value FROM secret INDEXED BY secret_family"
            " WHERE family = ? AND family <> '' AND kind = ? AND expires > ? ORDER BY key"
        )
        return tuple((key, value) for key, value in self._rows(sql, (family, kind, now)))

    async def list_page(self, kind: str, now: int, skip: int, limit: int) -> tuple[int, tuple[tuple[str, bytes], ...]]:
        ((count,),) = self._rows("SELECT count(*) FROM secret WHERE kind = ? AND expires > ?", (kind, now))
        sql = "SELECT key, value FROM secret WHERE kind = ? AND expires > ? ORDER BY key LIMIT ? OFFSET ?"
        return count, tuple((key, value) for key, value in self._rows(sql, (kind, now, limit, skip)))

    async def purge(self, now: int) -> None:
        await self._execute("DELETE FROM secret WHERE expires <= ?", (now,))
