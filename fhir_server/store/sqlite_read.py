"""Reading the SQLite store: one consistent snapshot on one connection, never suspending."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic
from typing import Any, Final

import apsw

from fhir_server.errors import Problem
from fhir_server.search import match
from fhir_server.search.filters import EVERYTHING, Filter
from fhir_server.search.sight import STALE, Entry, Indexed, Position, Sight, SortKey
from fhir_server.store import Page, Row, Stamp
from fhir_server.store import sqlite_plan as plan
from fhir_server.store import sqlite_rows as rows_
from fhir_server.store.sqlite_names import Names
from fhir_server.store.sqlite_order import Sorting, union
from fhir_server.store.sqlite_where import Meaning

SECONDS: Final = 2.0  # after which one statement is given up: reads run in the event loop, and others wait
_STEPS: Final = 20_000  # of SQLite's virtual machine between two looks at the clock

READ: Final = f"SELECT {rows_.COLUMNS} FROM res r WHERE r.type = ? AND r.id = ?"
_FETCH: Final = f"SELECT r.id, {rows_.COLUMNS} FROM carray(?) c CROSS JOIN res r WHERE r.rid = c.value"
_JUDGED: Final = (
    "SELECT r.id, r.rid, r.vclass, r.release_at, r.extra FROM carray(?) c CROSS JOIN res r INDEXED BY res_id"
    " WHERE r.type = ? AND r.id = c.value"
)
_PAST: Final = (
    "SELECT rid, version, updated, vclass, release_at, interaction, extra, body, entries FROM past"
    " WHERE type = ? AND id = ? ORDER BY version"
)
_STAMP: Final = (
    "SELECT (SELECT value FROM counter WHERE name = 'security'), coalesce((SELECT stamp FROM patient WHERE id = ?), 0), "
    "(SELECT coalesce(max(n) + 1, 0) FROM class)"
)


class SqliteSnapshot:
    """See :class:`fhir_server.store.Snapshot`.  Raises Problem ``busy`` for a statement that takes too long."""

    def __init__(self, connection: apsw.Connection, names: Names, *, seconds: float = SECONDS) -> None:
        self.connection = connection
        self.names = names
        self._seconds = seconds
        self._deadline = inf
        connection.set_progress_handler(lambda: monotonic() > self._deadline, _STEPS)

    def rows(self, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """All rows of a reading statement."""
        self._deadline = monotonic() + self._seconds
        try:
            return self.connection.execute(sql, args).fetchall()
        except apsw.InterruptError:
            raise Problem("busy", "The request asks for too much at once: narrow it, or ask later.") from None
        finally:
            self._deadline = inf

    async def read(self, type: str, id: str, sight: Sight) -> Row | None:
        found = self.rows(READ, (self.names.number("type:" + type), id))
        if not found:
            return None
        row = rows_.row(type, id, found[0], self.names)
        return row if self._admits(sight, type, id, row.patients, row.vclass, row.release_at, found[0][0]) else None

    def _admits(self, sight: Sight, type: str, id: str, owners: tuple[str, ...], vclass: int, release_at: int, rid: int) -> bool:
        """:func:`match.admits`, with the entries of the row fetched only where a window asks for them."""
        conditional = False
        for window in sight.windows:
            if (
                vclass in window.classes
                and (window.patients is None or not window.patients.isdisjoint(owners))
                and (release_at <= sight.now or not window.released)
            ):
                if window.where is EVERYTHING:
                    return True
                conditional = True
        if not conditional:
            return False
        return match.admits(sight, Indexed(type, id, owners, vclass, release_at, self._entries(rid)))

    def _entries(self, rid: int) -> tuple[Entry, ...]:
        return rows_.entries(self.rows("SELECT entries FROM body WHERE rid = ?", (rid,))[0][0], self.names)

    async def find(
        self, type: str, where: Filter, sight: Sight, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        meaning = Meaning(type, self.names)
        floor = -1 if after is None else self._resumed(type, sight, sort, after)
        if sort:
            found = Sorting(meaning, where, sight, self, sort, limit + 1, after, floor).rows()
        else:
            found = self._in_order(plan.arms(meaning, where, sight, self, floor=floor), limit + 1)
        shown = found[: max(limit, 0)]
        rows = self._fetch(type, [values[0] for values in shown])
        return Page(rows, Position(shown[-1][1:], rows[-1].id) if shown and len(found) > limit else None)

    def _resumed(self, type: str, sight: Sight, sort: tuple[SortKey, ...], after: Position) -> int:
        found = self.rows(READ, (self.names.number("type:" + type), after.id))
        if found and len(after.keys) == len(sort):
            row = rows_.row(type, after.id, found[0], self.names)
            if self._admits(sight, type, row.id, row.patients, row.vclass, row.release_at, found[0][0]):
                return int(found[0][0])
        raise Problem("invalid", STALE)

    def _in_order(self, arms: tuple[plan.Arm, ...], limit: int) -> list[tuple[Any, ...]]:
        if not arms:
            return []
        text, args = union(arms)
        return self.rows(f"{text} ORDER BY 1 LIMIT ?", (*args, limit))

    def _fetch(self, type: str, rids: list[int]) -> tuple[Row, ...]:
        if not rids:
            return ()
        names = self.names
        found = self.rows(_FETCH, (apsw.carray(array("q", rids)),))
        return tuple([rows_.row(type, values[0], values[1:], names) for values in found])

    async def count(self, type: str, where: Filter, sight: Sight) -> int:
        arms = plan.arms(Meaning(type, self.names), where, sight, self, whole=True)
        if not arms:
            return 0
        text, args = union(arms)
        return int(self.rows(f"SELECT count(*) FROM ({text})", args)[0][0])

    async def patients_of(self, type: str, where: Filter, sight: Sight) -> frozenset[str]:
        arms = plan.arms(Meaning(type, self.names), where, sight, self, whole=True)
        if not arms:
            return frozenset()
        text, args = union(arms)
        sql = (
            f"WITH h AS MATERIALIZED ({text}) SELECT id FROM patient WHERE n IN (SELECT rid >> 32 FROM h"
            " UNION SELECT a.patient FROM h CROSS JOIN also a ON a.rid = h.rid)"
        )
        return frozenset([id for (id,) in self.rows(sql, args)])

    async def visible(self, targets: Iterable[str], sights: Callable[[str], Sight]) -> frozenset[str]:
        asked: dict[str, list[str]] = {}
        for target in targets:
            type, _, id = target.partition("/")
            asked.setdefault(type, []).append(id)
        shown: list[str] = []
        for type, ids in asked.items():
            number = self.names.number("type:" + type)
            if number is None:
                continue
            sight = sights(type)
            for id, rid, vclass, release_at, extra in self.rows(_JUDGED, (apsw.carray(tuple(ids)), number)):
                if self._admits(sight, type, id, rows_.patients(rid, extra, self.names), vclass, release_at, rid):
                    shown.append(f"{type}/{id}")
        return frozenset(shown)

    async def versions(self, type: str, id: str, sight: Sight) -> tuple[Row, ...]:
        number = self.names.number("type:" + type)
        kept = self.rows(_PAST, (number, id))
        for values in self.rows(READ, (number, id)):
            kept.append((*values, self.rows("SELECT entries FROM body WHERE rid = ?", (values[0],))[0][0]))
        shown: list[Row] = []
        newest = False
        for values in kept:
            row = rows_.row(type, id, values[:8], self.names)
            entries = rows_.entries(values[8], self.names)
            admitted = match.admits(sight, Indexed(type, id, row.patients, row.vclass, row.release_at, entries))
            if admitted:
                shown.append(row)
            if row.interaction != "delete":
                newest = admitted
        return tuple(shown) if newest else ()

    async def classes(self) -> tuple[str, ...]:
        return self.names.classes()

    async def stamp(self, patient: str | None) -> Stamp:
        return Stamp(*self.rows(_STAMP, (patient,))[0])
