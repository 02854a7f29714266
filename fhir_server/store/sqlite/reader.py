"""Reads the SQLite store: one consistent snapshot on one connection, whose methods never suspend."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from operator import itemgetter
from time import monotonic
from typing import Any, Final

import apsw

from fhir_server import budget
from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.search import match
from fhir_server.search.filters import EVERYTHING, Filter
from fhir_server.search.rows import STALE_LINK, Entry, Position, RowEntries, SearchableRow, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import Page, PermissionEpoch, Row, VersionStamp, chains
from fhir_server.store.changes import Change, ChangeRange
from fhir_server.store.sqlite import changes, logs, planner, purging
from fhir_server.store.sqlite import rows as rows_
from fhir_server.store.sqlite.index_entries import found_entries, found_references
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.schema import MAX_RID, PATIENT_BITS, SEQUENCE
from fhir_server.store.sqlite.sorting import SortedQuery, in_order, union
from fhir_server.store.sqlite.steps import SqliteSteps
from fhir_server.store.sqlite.translate import FilterTranslator, class_mask, union_of

SECONDS: Final = 2.0  # time limit of one statement
_STEPS: Final = 4_000  # instructions of SQLite's virtual machine between two checks of the time limit

READ: Final = f"SELECT {rows_.COLUMNS} FROM res r WHERE r.type = ? AND r.id = ?"
_FETCH: Final = f"SELECT r.id, {rows_.COLUMNS} FROM carray(?) c CROSS JOIN res r WHERE r.rid = c.value"
_VISIBLE: Final = (
    "WITH t(type, id) AS (VALUES %s) SELECT r.type, r.id, r.rid, r.vclass, r.release_at, r.extra"
    " FROM t CROSS JOIN res r INDEXED BY res_id WHERE r.type = t.type AND r.id = t.id"
)
_MAX_TARGETS: Final = 64  # in one statement; there is one compiled statement for each number of targets
# past and current versions; ``n`` is the number of a past one
_PAST: Final = (
    "SELECT r.rid, r.version, r.updated, r.vclass, r.release_at, r.interaction, r.extra, r.body, r.n FROM past r"
    " WHERE r.type = ? AND r.id = ?"
)
_CURRENT: Final = f"SELECT {rows_.COLUMNS}, 0 FROM res r WHERE r.type = ? AND r.id = ?"
_AMONG: Final = " AND r.version IN (SELECT value FROM carray(?))"
# the labels of the newest version that is not a deletion
_NEWEST: Final = (
    "SELECT r.rid, r.vclass, r.release_at, r.extra, r.n FROM"
    " (SELECT rid, vclass, release_at, extra, 0 AS n FROM res WHERE type = ?1 AND id = ?2 UNION ALL"
    " SELECT * FROM (SELECT rid, vclass, release_at, extra, n FROM past WHERE type = ?1 AND id = ?2 AND interaction <> 2"
    " AND NOT EXISTS (SELECT 1 FROM res WHERE type = ?1 AND id = ?2) ORDER BY version DESC LIMIT 1)) r WHERE 1"
)
_NEWEST_NUMBER: Final = "SELECT max(version) FROM past WHERE type = ? AND id = ?"
_STAMPS: Final = "SELECT r.version, r.updated, r.vclass, r.release_at, r.extra FROM %s r WHERE r.type = ? AND r.id = ?" + _AMONG
# A resource without a current row that has a past one was deleted.
_DELETED: Final = (
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM past WHERE type = ? AND id = ?) AND NOT EXISTS (SELECT 1 FROM res WHERE type = ? AND id = ?)"
)
_HAS_LABELS: Final = " AND substr(?, r.vclass + 1, 1) = x'01' AND r.release_at <= ?"
_HAS_PATIENT: Final = " AND (r.rid >> 32 = ? OR %s OR EXISTS (SELECT 1 FROM also a WHERE a.rid = r.rid AND a.patient = ?))"
# one index lookup for each band, however many rows the patient has; with EXISTS, SQLite reads all rows of a band
_TYPES: Final = (
    "SELECT DISTINCT b.type FROM band b"
    " WHERE (SELECT 1 FROM res r INDEXED BY res_scan WHERE r.band = b.n AND r.rid BETWEEN ? AND ? LIMIT 1)"
)
_TYPES_ALSO: Final = "SELECT DISTINCT b.type FROM band b WHERE (SELECT 1 FROM also a WHERE a.patient = ? AND a.band = b.n LIMIT 1)"
_LARGE: Final = 1024 * 1024  # bytes of a page from which on the room in the answer is checked
_COUNT_UP_TO: Final = 500  # rows of one patient that a search finds at once, so that it need not be repeated for the total
_EPOCH: Final = (
    "SELECT (SELECT value FROM counter WHERE name = 'security'), coalesce((SELECT stamp FROM patient WHERE id = ?), 0), "
    "(SELECT coalesce(max(n) + 1, 0) FROM class)"
)


class TakesLongError(Exception):
    """A read was not done when it had to be, by ``inline_until``."""


class SqliteSnapshot:
    """See :class:`fhir_server.store.Snapshot`.

    Raises Problem ``busy`` if a statement takes longer than ``seconds``, and ``too_costly`` if the request's budget is used up.
    ``inline_until`` is the time by which reads must be done, on the clock of :func:`time.monotonic`.
    """

    def __init__(self, connection: apsw.Connection, names: Names, *, seconds: float = SECONDS) -> None:
        self.connection = connection
        self.names = names
        self._seconds = seconds
        self._deadline = self._ends = inf  # of the statement; the second whatever thread it is on
        self.inline_until = inf
        self._is_last = False  # whether the budget ends before the statement's own time limit
        connection.set_progress_handler(self._is_over, _STEPS)

    def _is_over(self) -> bool:
        """Whether the time of the statement is used up, as SQLite asks from time to time."""
        return monotonic() > self._deadline and not self._prolong()

    def _is_late(self) -> bool:
        """Whether the time for a read on this thread is used up."""
        return monotonic() > self.inline_until and not self._prolong()

    def _prolong(self) -> bool:
        """Give a read that is late more time on this thread.  Returns whether it got some."""
        return False

    def rows(self, sql: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Run a reading statement and return all its rows.

        Raises Problem ``busy`` or ``too_costly`` if it takes too long, or TakesLongError.
        """
        spending = budget.current()
        self._begin(spending)
        try:
            cursor = self.connection.execute(sql, args)
            return cursor.fetchall() if self.inline_until == inf else self._fetch_inline(cursor)
        except apsw.InterruptError:
            raise self._interrupted(spending) from None
        finally:
            self._deadline = self._ends = inf

    def _fetch_inline(self, cursor: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """All rows.  Looks at the clock after each one, because each waits for Python's global lock if other threads work."""
        found: list[tuple[Any, ...]] = []
        for row in cursor:
            found.append(row)
            if self._is_late():
                raise TakesLongError
        return found

    def _begin(self, spending: budget.Budget | None) -> None:
        """Set the time limit of the next statement: its own, the rest of the request's budget, the time for reads on this thread."""
        now = monotonic()
        if now > self.inline_until and not self._prolong():
            raise TakesLongError
        seconds, self._is_last = self._seconds, False
        if spending is not None and spending.is_watched:
            remaining = spending.remaining()
            self._is_last = remaining < seconds
            seconds = min(seconds, remaining)
        self._ends = now + seconds
        self._deadline = min(self._ends, self.inline_until)

    def _interrupted(self, spending: budget.Budget | None) -> Exception:
        if monotonic() > self.inline_until:
            return TakesLongError()
        if spending is not None and self._is_last:
            return spending.out_of_time()
        return Problem("busy", "The search takes too long. Narrow it, or try again later.")

    def expect_read(self, type: str, id: str, visibility: Visibility) -> None:
        """Do nothing: a query costs no message here."""

    async def read(self, type: str, id: str, visibility: Visibility) -> Row | None:
        found = self._admitted_by_labels(READ, visibility, (self.names.number("type:" + type), id))
        if not found:
            return None
        row = rows_.decode_row(type, id, found[0], self.names)
        return row if self._admits(visibility, type, id, row.patients, row.class_id, row.release_at, found[0][0]) else None

    def _admitted_by_labels(
        self, sql: str, visibility: Visibility, args: tuple[Any, ...], *, unknown_patients: str = "0"
    ) -> list[tuple[Any, ...]]:
        """Run a statement on ``r`` for the rows that the visibility may admit by class, release and patient.

        A row that is hidden for one of these reasons costs what an absent row costs: nothing of it is decoded.
        ``unknown_patients``: the condition that ``r`` may have more patients than the tables of current rows say.
        """
        clauses = visibility.clauses
        if len(clauses) != 1:
            classes = union_of(tuple([clause.classes for clause in clauses]))
            released_only = all(clause.released_only for clause in clauses)
            return self.rows(sql + _HAS_LABELS, (*args, class_mask(classes), visibility.now if released_only else MAX_INSTANT))
        clause = clauses[0]
        labels = class_mask(clause.classes), visibility.now if clause.released_only else MAX_INSTANT
        if clause.patients is None or len(clause.patients) != 1:
            return self.rows(sql + _HAS_LABELS, (*args, *labels))
        (patient,) = clause.patients
        number = self.names.patient(patient)
        return self.rows(sql + _HAS_LABELS + _HAS_PATIENT % unknown_patients, (*args, *labels, number, number))

    def _admits(
        self, visibility: Visibility, type: str, id: str, owners: tuple[str, ...], class_id: int, release_at: int, rid: int, past: int = 0
    ) -> bool:
        """The same as :func:`match.is_visible`, but reads the entries of the row only if a clause has a condition.

        ``past``: the number of a past version, 0 for a current one.
        """
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
        return match.is_visible(visibility, SearchableRow(type, id, owners, class_id, release_at, self._entries(rid, past)))

    def _entries(self, rid: int, past: int) -> tuple[Entry, ...]:
        sql = "SELECT entries FROM past WHERE n = ?" if past else "SELECT entries FROM body WHERE rid = ?"
        return rows_.decode_entries(self.rows(sql, (past or rid,))[0][0], self.names)

    async def find(
        self, type: str, where: Filter, visibility: Visibility, *, sort: tuple[SortKey, ...] = (), limit: int, after: Position | None = None
    ) -> Page:
        translator = FilterTranslator(type, self.names)
        where = await self._resolved(type, where)
        floor = -1 if after is None else self._resume(type, visibility, sort, after) & planner.place_bits(visibility)
        total = None
        if sort:
            found = SortedQuery(translator, where, visibility, self, sort, limit + 1, after, floor).rows()
        else:
            # A search of one patient's rows usually asks for the total too: a few more rows cost less than a second search.
            wanted = max(limit + 1, _COUNT_UP_TO) if limit > 0 and visibility.limited_to_patients else limit + 1
            paths = planner.access_paths_of_page(translator, where, visibility, self, floor)
            found = self.rows(*in_order(paths, visibility, wanted)) if paths else []
            total = len(found) if after is None and len(found) < wanted else None
        page = found[: max(limit, 0)]
        rows = self._fetch(type, [values[0] for values in page])
        return Page(rows, Position(page[-1][1:], rows[-1].id) if page and len(found) > limit else None, total)

    def _resume(self, type: str, visibility: Visibility, sort: tuple[SortKey, ...], after: Position) -> int:
        found = self.rows(READ, (self.names.number("type:" + type), after.id))
        if found and len(after.keys) == len(sort):
            row = rows_.decode_row(type, after.id, found[0], self.names)
            if self._admits(visibility, type, row.id, row.patients, row.class_id, row.release_at, found[0][0]):
                return int(found[0][0])
        raise Problem("invalid", STALE_LINK)

    def _fetch(self, type: str, rids: list[int]) -> tuple[Row, ...]:
        if not rids:
            return ()
        names = self.names
        rows: list[Row] = []
        size = 0
        spending = budget.current()
        self._begin(spending)
        try:
            # One by one: bodies that do not fit into the answer are not read.
            for values in self.connection.execute(_FETCH, (apsw.carray(array("q", rids)),)):
                row = rows_.decode_row(type, values[0], values[1:], names)
                rows.append(row)
                size += len(row.body)
                if self._is_late():
                    raise TakesLongError
                if spending is not None and size > _LARGE:
                    spending.require_room(size)
        except apsw.InterruptError:
            raise self._interrupted(spending) from None
        finally:
            self._deadline = self._ends = inf
        return tuple(rows)

    async def _resolved(self, type: str, where: Filter) -> Filter:
        return await chains.resolved(type, where, SqliteSteps(self, self.names))

    async def count(self, type: str, where: Filter, visibility: Visibility, *, most: int | None = None) -> int:
        where = await self._resolved(type, where)
        paths = planner.access_paths_of_all(FilterTranslator(type, self.names), where, visibility, self)
        if not paths:
            return 0
        text, args = union(paths)
        within, limit = ("", ()) if most is None else (" LIMIT ?", (most,))
        return int(self.rows(f"SELECT count(*) FROM ({text}{within})", (*args, *limit))[0][0])

    async def patients_of(self, type: str, where: Filter, visibility: Visibility) -> frozenset[str]:
        where = await self._resolved(type, where)
        paths = planner.access_paths_of_all(FilterTranslator(type, self.names), where, visibility, self)
        if not paths:
            return frozenset()
        text, args = union(paths)
        sql = (
            f"WITH h AS MATERIALIZED ({text}) SELECT id FROM patient WHERE n IN (SELECT rid >> 32 FROM h"
            " UNION SELECT a.patient FROM h CROSS JOIN also a ON a.rid = h.rid)"
        )
        return frozenset([id for (id,) in self.rows(sql, args)])

    async def references_of(self, type: str, param: str, visibility: Visibility, among: frozenset[str] | None = None) -> frozenset[str]:
        return found_references(self, type, param, visibility, among)

    async def entries_of(
        self, type: str, where: Filter, visibility: Visibility, params: Collection[tuple[str, str]], limit: int
    ) -> tuple[RowEntries, ...]:
        return found_entries(self, type, await self._resolved(type, where), visibility, params, limit)

    async def visible(self, targets: Iterable[str], visibilities: Callable[[str], Visibility]) -> frozenset[str]:
        types: dict[int, tuple[str, Visibility]] = {}
        keys: list[tuple[int, str]] = []
        for target in targets:
            type, _, id = target.partition("/")
            number = self.names.number("type:" + type)
            if number is not None:
                if number not in types:
                    types[number] = type, visibilities(type)
                keys.append((number, id))
        visible: list[str] = []
        for start in range(0, len(keys), _MAX_TARGETS):
            for number, id, rid, class_id, release_at, extra in self.rows(*_visible_statement(keys[start : start + _MAX_TARGETS])):
                type, visibility = types[number]
                if self._admits(visibility, type, id, rows_.decode_patients(rid, extra, self.names), class_id, release_at, rid):
                    visible.append(f"{type}/{id}")
        return frozenset(visible)

    async def deleted_unfiltered(self, targets: Iterable[str]) -> frozenset[str]:
        pairs = {target: target.partition("/") for target in targets}
        keys = {target: (self.names.number("type:" + type), id) for target, (type, _, id) in pairs.items()}
        return frozenset([target for target, key in keys.items() if self.rows(_DELETED, key + key)])

    async def types_of_unfiltered(self, patients: frozenset[str]) -> frozenset[str]:
        found: set[int] = set()
        for number in self.names.patients(patients):
            start = number << PATIENT_BITS
            found.update([type for (type,) in self.rows(_TYPES, (start, start + SEQUENCE))])
            found.update([type for (type,) in self.rows(_TYPES_ALSO, (number,))])
        return frozenset([self.names.text(type).removeprefix("type:") for type in found])

    async def newest(self, type: str, id: str, visibility: Visibility) -> Row | None:
        number = self.names.number("type:" + type)
        if not self._is_newest_visible(type, number, id, visibility):
            return None
        found = self.rows(_CURRENT, (number, id))
        if not found:
            found = self.rows(_PAST + " AND r.version = ?", (number, id, self.rows(_NEWEST_NUMBER, (number, id))[0][0]))
        return self._admitted(type, id, found[0], visibility)

    async def newest_of(self, names: Sequence[tuple[str, str]], visibilities: Mapping[str, Visibility]) -> dict[tuple[str, str], Row]:
        return await changes.newest_of(self, names, visibilities)

    async def versions(self, type: str, id: str, visibility: Visibility, numbers: Collection[int] | None = None) -> tuple[Row, ...]:
        number = self.names.number("type:" + type)
        if not self._is_newest_visible(type, number, id, visibility):
            return ()
        key: tuple[Any, ...] = (number, id)
        among = "" if numbers is None else _AMONG
        args = key if numbers is None else (*key, apsw.carray(array("q", numbers)))
        found: list[tuple[Any, ...]] = []
        for sql in (_PAST, _CURRENT):
            found += self._admitted_by_labels(sql + among, visibility, args, unknown_patients="1")
        rows = [self._admitted(type, id, values, visibility) for values in sorted(found, key=itemgetter(1))]
        return tuple([row for row in rows if row is not None])

    def _is_newest_visible(self, type: str, number: int | None, id: str, visibility: Visibility) -> bool:
        """Return whether the newest version that is not a deletion is visible."""
        found = self._admitted_by_labels(_NEWEST, visibility, (number, id), unknown_patients="r.n")
        if not found:
            return False
        rid, class_id, release_at, extra, past = found[0]
        return self._admits(visibility, type, id, rows_.decode_patients(rid, extra, self.names), class_id, release_at, rid, past)

    def _admitted(self, type: str, id: str, values: tuple[Any, ...], visibility: Visibility) -> Row | None:
        """Return the version with these values of _PAST or _CURRENT if it is visible."""
        row = rows_.decode_row(type, id, values[:8], self.names)
        is_visible = self._admits(visibility, type, id, row.patients, row.class_id, row.release_at, values[0], values[8])
        return row if is_visible else None

    async def stamps_unfiltered(self, type: str, id: str, numbers: Collection[int]) -> dict[int, VersionStamp]:
        if not numbers:
            return {}
        args = self.names.number("type:" + type), id, apsw.carray(array("q", numbers))
        found = [rows_.decode_stamp(values) for table in ("past", "res") for values in self.rows(_STAMPS % table, args)]
        return {stamp.version: stamp for stamp in found}

    async def changes_unfiltered(self, visibilities: Mapping[str, Visibility], limit: int, range: ChangeRange) -> tuple[Change, ...]:
        return await changes.changes(self, visibilities, limit, range)

    async def classes(self) -> tuple[str, ...]:
        return self.names.classes()

    async def permission_epoch(self, patient: str | None) -> PermissionEpoch:
        return PermissionEpoch(*self.rows(_EPOCH, (patient,))[0])

    async def history_horizon(self) -> int:
        return purging.horizon(self)

    async def with_past_unfiltered(self, after: tuple[str, str], limit: int) -> tuple[tuple[str, str], ...]:
        return purging.with_past(self, after, limit)

    async def log_lines_unfiltered(self, log: str, key: str | None, *, before: int | None, limit: int) -> tuple[tuple[int, bytes], ...]:
        return logs.lines_before(self, log, key, MAX_RID if before is None else before, limit)

    async def records_unfiltered(self, kind: str, prefix: str = "", limit: int | None = None) -> tuple[tuple[str, bytes], ...]:
        sql = "SELECT key, value FROM secret WHERE kind = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
        return tuple(self.rows(sql, (kind, prefix, prefix + "\x7f", -1 if limit is None else limit)))


def _visible_statement(keys: list[tuple[int, str]]) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that looks up these (type number, id).

    The last one is repeated to make the number of them a multiple of 4, so that there are few different statements.
    """
    size = len(keys) if len(keys) < 4 else -4 * (-len(keys) // 4)
    padded = keys + keys[-1:] * (size - len(keys))
    return _VISIBLE % ", ".join(["(?, ?)"] * size), tuple([value for key in padded for value in key])
