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
from fhir_server.search.rows import STALE_LINK, Entry, Position, SearchableRow, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import Page, PermissionEpoch, Row
from fhir_server.store.sqlite import planner as plan
from fhir_server.store.sqlite import rows as rows_
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.schema import PATIENT_BITS, SEQUENCE
from fhir_server.store.sqlite.sorting import Sorting, in_order, union
from fhir_server.store.sqlite.translate import Meaning

SECONDS: Final = 2.0  # after which one statement is given up: reads run in the event loop, and others wait
_STEPS: Final = 20_000  # of SQLite's virtual machine between two looks at the clock

READ: Final = f"SELECT {rows_.COLUMNS} FROM res r WHERE r.type = ? AND r.id = ?"
_FETCH: Final = f"SELECT r.id, {rows_.COLUMNS} FROM carray(?) c CROSS JOIN res r WHERE r.rid = c.value"
_JUDGED: Final = (
    "WITH t(type, id) AS (VALUES %s) SELECT r.type, r.id, r.rid, r.vclass, r.release_at, r.extra"
    " FROM t CROSS JOIN res r INDEXED BY res_id WHERE r.type = t.type AND r.id = t.id"
)
_MOST_JUDGED: Final = 64  # in one statement, of which there are as many as sizes
_PAST: Final = (
    "SELECT rid, version, updated, vclass, release_at, interaction, extra, body, entries FROM past"
    " WHERE type = ? AND id = ? ORDER BY version"
)
# one look for each type there is, however many rows the patient has
_TYPES: Final = (
    "SELECT n FROM name WHERE text >= 'type:' AND text < 'type;'"
    " AND EXISTS (SELECT 1 FROM res r INDEXED BY res_scan WHERE r.type = name.n AND r.rid BETWEEN ? AND ?)"
)
_TYPES_ALSO: Final = "SELECT DISTINCT r.type FROM also a CROSS JOIN res r WHERE a.patient = ? AND r.rid = a.rid"
_COUNTED: Final = 500  # rows of a record that are found at once, to spare the question how many there are
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

    async def read(self, type: str, id: str, visibility: Visibility) -> Row | None:
        found = self.rows(READ, (self.names.number("type:" + type), id))
        if not found:
            return None
        row = rows_.row(type, id, found[0], self.names)
        return row if self._admits(visibility, type, id, row.patients, row.class_id, row.release_at, found[0][0]) else None

    def _admits(
        self, visibility: Visibility, type: str, id: str, owners: tuple[str, ...], class_id: int, release_at: int, rid: int
    ) -> bool:
        """:func:`match.admits`, with the entries of the row fetched only where a window asks for them."""
        conditional = False
        for clause in visibility.clauses:
            if (
                class_id in clause.classes
                and (clause.patients is None or not clause.patients.isdisjoint(owners))
                and (release_at <= visibility.now or not clause.released_only)
            ):
                if clause.where is EVERYTHING:
                    return True
                conditional = True
        if not conditional:
            return False
        return match.is_visible(visibility, SearchableRow(type, id, owners, class_id, release_at, self._entries(rid)))

    def _entries(self, rid: int) -> tuple[Entry, ...]:
        return rows_.entries(self.rows("SELECT entries FROM body WHERE rid = ?", (rid,))[0][0], self.names)

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        meaning = Meaning(type, self.names)
        floor = -1 if after is None else self._resumed(type, visibility, sort, after) & plan.place_bits(visibility)
        total = None
        if sort:
            found = Sorting(meaning, where, visibility, self, sort, limit + 1, after, floor).rows()
        else:
            # Of a record's rows a total is mostly asked too: a few more are cheaper to find than all of them once again.
            wanted = max(limit + 1, _COUNTED) if limit > 0 and visibility.limited_to_patients else limit + 1
            arms = plan.access_paths(meaning, where, visibility, self, floor=floor)
            found = self.rows(*in_order(arms, visibility, wanted)) if arms else []
            total = len(found) if after is None and len(found) < wanted else None
        shown = found[: max(limit, 0)]
        rows = self._fetch(type, [values[0] for values in shown])
        return Page(rows, Position(shown[-1][1:], rows[-1].id) if shown and len(found) > limit else None, total)

    def _resumed(self, type: str, visibility: Visibility, sort: tuple[SortKey, ...], after: Position) -> int:
        found = self.rows(READ, (self.names.number("type:" + type), after.id))
        if found and len(after.keys) == len(sort):
            row = rows_.row(type, after.id, found[0], self.names)
            if self._admits(visibility, type, row.id, row.patients, row.class_id, row.release_at, found[0][0]):
                return int(found[0][0])
        raise Problem("invalid", STALE_LINK)

    def _fetch(self, type: str, rids: list[int]) -> tuple[Row, ...]:
        if not rids:
            return ()
        names = self.names
        found = self.rows(_FETCH, (apsw.carray(array("q", rids)),))
        return tuple([rows_.row(type, values[0], values[1:], names) for values in found])

    async def count(self, type: str, where: Filter, visibility: Visibility) -> int:
        arms = plan.access_paths(Meaning(type, self.names), where, visibility, self, whole=True)
        if not arms:
            return 0
        text, args = union(arms)
        return int(self.rows(f"SELECT count(*) FROM ({text})", args)[0][0])

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        arms = plan.access_paths(Meaning(type, self.names), where, visibility, self, whole=True)
        if not arms:
            return frozenset()
        text, args = union(arms)
        sql = (
            f"WITH h AS MATERIALIZED ({text}) SELECT id FROM patient WHERE n IN (SELECT rid >> 32 FROM h"
            " UNION SELECT a.patient FROM h CROSS JOIN also a ON a.rid = h.rid)"
        )
        return frozenset([id for (id,) in self.rows(sql, args)])

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        types: dict[int, tuple[str, Visibility]] = {}
        asked: list[tuple[int, str]] = []
        for target in targets:
            type, _, id = target.partition("/")
            number = self.names.number("type:" + type)
            if number is not None:
                if number not in types:
                    types[number] = type, visibilities(type)
                asked.append((number, id))
        shown: list[str] = []
        for start in range(0, len(asked), _MOST_JUDGED):
            for number, id, rid, class_id, release_at, extra in self.rows(*_judging(asked[start : start + _MOST_JUDGED])):
                type, visibility = types[number]
                if self._admits(visibility, type, id, rows_.patients(rid, extra, self.names), class_id, release_at, rid):
                    shown.append(f"{type}/{id}")
        return frozenset(shown)

    async def types_of(self, patients: frozenset[str]) -> frozenset[str]:
        found: set[int] = set()
        for number in self.names.patients(patients):
            start = number << PATIENT_BITS
            found.update([type for (type,) in self.rows(_TYPES, (start, start + SEQUENCE))])
            found.update([type for (type,) in self.rows(_TYPES_ALSO, (number,))])
        return frozenset([self.names.text(type).removeprefix("type:") for type in found])

    async def versions(self, type: str, id: str, visibility: Visibility) -> tuple[Row, ...]:
        number = self.names.number("type:" + type)
        kept = self.rows(_PAST, (number, id))
        for values in self.rows(READ, (number, id)):
            kept.append((*values, self.rows("SELECT entries FROM body WHERE rid = ?", (values[0],))[0][0]))
        shown: list[Row] = []
        newest = False
        for values in kept:
            row = rows_.row(type, id, values[:8], self.names)
            entries = rows_.entries(values[8], self.names)
            admitted = match.is_visible(visibility, SearchableRow(type, id, row.patients, row.class_id, row.release_at, entries))
            if admitted:
                shown.append(row)
            if row.interaction != "delete":
                newest = admitted
        return tuple(shown) if newest else ()

    async def classes(self) -> tuple[str, ...]:
        return self.names.classes()

    async def permission_epoch(self, patient: str | None) -> PermissionEpoch:
        return PermissionEpoch(*self.rows(_STAMP, (patient,))[0])


def _judging(asked: list[tuple[int, str]]) -> tuple[str, tuple[Any, ...]]:
    """The statement that looks up these (type, id), the last of them repeatedly to make up a multiple of 4."""
    size = len(asked) if len(asked) < 4 else -4 * (-len(asked) // 4)
    filled = asked + asked[-1:] * (size - len(asked))
    return _JUDGED % ", ".join(["(?, ?)"] * size), tuple([value for one in filled for value in one])
