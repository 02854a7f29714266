"""Rows in the order of sort keys: the narrow part of a sorted answer, ``(rid, sort value, ...)``.

Few rows are given their values and sorted.  Where nothing narrows a search with one key, the index of that key
is walked instead, in its own order, and after it the rows without a value in theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position, SortKey
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store.sqlite import planner as plan
from fhir_server.store.sqlite.rows import TABLES
from fhir_server.store.sqlite.translate import TRUE, Meaning, Sql, admitted, both, either, param_number

_COLUMN: Final = {"token": "code", "reference": "target", "string": "folded", "date": "lo", "quantity": "number"}
# indexes whose order is that of one parameter's values; references are by target first, for the sake of referrers
_WALKED: Final = {"code": "tok_value", "folded": "str_value", "lo": "dat_lo", "hi": "dat_value", "number": "num_value"}

Found = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Sorting:
    """A sorted question: at most ``limit`` rows from behind ``after``, the position of a row whose place is ``place``."""

    meaning: Meaning
    where: Filter
    visibility: Visibility
    reading: plan.RowReader
    sort: tuple[SortKey, ...]
    limit: int
    after: Position | None
    place: int

    def rows(self) -> Found:
        """``(rid, sort value, ...)`` of each row found."""
        arms = plan.access_paths(self.meaning, self.where, self.visibility, self.reading, whole=True)
        clauses = plan.merged(self.visibility.clauses)
        key = self.sort[0]
        if len(self.sort) == 1 and len(clauses) == 1 and column(key) in _WALKED and any(arm.wide for arm in arms):
            number = param_number(self.meaning.type, key.param, key.kind, self.meaning.names)
            if number is not None:
                return self._walked(clauses[0], key, number)
        return self._sorted(arms, clauses) if arms else []

    def _sorted(self, arms: tuple[plan.AccessPath, ...], clauses: Sequence[VisibilityClause]) -> Found:
        text, args = union(arms)
        placed = f"rid & {plan.place_bits(self.visibility)}"
        values = [sort_value(self.meaning, key, clauses, self.visibility.now) for key in self.sort]
        columns = "".join([f", {value} AS k{place}" for place, (value, _) in enumerate(values)])
        behind, more = ("1", ()) if self.after is None else _behind(self.sort, self.after, placed, self.place)
        order = "".join([f"k{place}{' DESC' if key.descending else ''} NULLS LAST, " for place, key in enumerate(self.sort)])
        listed = "".join([f", k{place}" for place in range(len(self.sort))])
        sql = (
            f"WITH h AS MATERIALIZED (SELECT c.rid AS rid{columns} FROM ({text}) c)"
            f" SELECT rid{listed} FROM h WHERE {behind} ORDER BY {order}{placed} LIMIT ?"
        )
        of_values = [arg for _, of_value in values for arg in of_value]
        return self.reading.rows(sql, (*of_values, *args, *more, self.limit))

    def _walked(self, clause: VisibilityClause, key: SortKey, number: int) -> Found:
        wanted = both(self.meaning.condition(self.where, clause.classes), self.meaning.shown(clause, self.visibility.now))
        of_param = both(("{0}.rid = r.rid AND {0}.param = ?", (number,)), admitted("{0}", clause.classes))
        found: Found = []
        rid = self.place
        if self.after is None or self.after.keys[0] is not None:
            found = self._with_value(key, of_param, wanted)
            rid = -1
        if len(found) < self.limit:
            none = f"NOT EXISTS (SELECT 1 FROM {TABLES[key.kind][0]} x WHERE {of_param[0].format('x')})"
            arm = plan.by_rows(self.meaning, both(wanted, (none, of_param[1])), plan.beyond(rid))
            rest = self.reading.rows(f"{arm.select()} ORDER BY 1 LIMIT ?", (*arm.args, self.limit - len(found)))
            found += [(one, None) for (one,) in rest]
        return found

    def _with_value(self, key: SortKey, of_param: Sql, wanted: Sql) -> Found:
        table, name = TABLES[key.kind][0], column(key)
        better, order = (">", " DESC") if key.descending else ("<", "")
        other = f"NOT EXISTS (SELECT 1 FROM {table} y WHERE {of_param[0].format('y')} AND y.{name} {better} x.{name})"
        text, args = both((of_param[0].format("x"), of_param[1]), self._from(key, name), wanted, (other, of_param[1]))
        sql = (
            f"SELECT DISTINCT x.rid, x.{name} FROM {table} x INDEXED BY {_WALKED[name]} CROSS JOIN res r"
            f" WHERE {text} ORDER BY x.{name}{order}, x.rid LIMIT ?"
        )
        return self.reading.rows(sql, (*args, self.limit))

    def _from(self, key: SortKey, name: str) -> Sql:
        if self.after is None:
            return TRUE
        value = self.after.keys[0]
        reached, passed = ("<=", "<") if key.descending else (">=", ">")
        return f"x.{name} {reached} ? AND (x.{name} {passed} ? OR x.rid > ?)", (value, value, self.place)


def in_order(arms: tuple[plan.AccessPath, ...], visibility: Visibility, limit: int) -> Sql:
    """The statement for at most ``limit`` rids of these arms in the order of places."""
    if not visibility.limited_to_patients or (arms[0].patient is not None and len({arm.patient for arm in arms}) == 1):
        text, args = union(arms)
        return f"{text} ORDER BY 1 LIMIT ?", (*args, limit)
    firsts = [arm.firsts(limit) for arm in arms]
    if len(firsts) == 1:
        return firsts[0]
    text = " UNION ".join([f"SELECT rid FROM ({text})" for text, _ in firsts])
    args = tuple([value for _, values in firsts for value in values])
    return f"SELECT rid FROM ({text}) ORDER BY rid & {plan.place_bits(visibility)} LIMIT ?", (*args, limit)


def union(arms: tuple[plan.AccessPath, ...]) -> Sql:
    """The rids of all arms, each once."""
    text = " UNION ".join([arm.select(distinct=len(arms) == 1) for arm in arms])
    return text, tuple([arg for arm in arms for arg in arm.args])


def column(key: SortKey) -> str:
    """The column of its table that a key sorts by."""
    if key.param == "_id":
        return "id"
    return "hi" if key.kind == "date" and key.descending else _COLUMN[key.kind]


def sort_value(meaning: Meaning, key: SortKey, clauses: Sequence[VisibilityClause], now: int) -> Sql:
    """The sort value of the row whose ``rid`` is ``c.rid``: its least or greatest entry in any window that shows it."""
    if key.param == "_id":
        return "(SELECT id FROM res WHERE rid = c.rid)", ()
    number = param_number(meaning.type, key.param, key.kind, meaning.names)
    if number is None:
        return "NULL", ()
    value = f"SELECT {'max' if key.descending else 'min'}(x.{column(key)}) FROM {TABLES[key.kind][0]} x"
    of_row: Sql = ("x.rid = c.rid AND x.param = ?", (number,))
    if len({clause.classes for clause in clauses}) == 1:
        text, args = both(of_row, admitted("x", clauses[0].classes))
        return f"({value} WHERE {text})", args
    seen = either(*[both(admitted("x", clause.classes), meaning.shown(clause, now)) for clause in clauses])
    text, args = both(of_row, ("r.rid = c.rid", ()), seen)
    return f"({value} CROSS JOIN res r WHERE {text})", args


def _behind(sort: tuple[SortKey, ...], after: Position, placed: str, place: int) -> Sql:
    """The row comes after this position: behind it in the first key that differs, or else in what is ``placed``."""
    parts: list[Sql] = []
    same: list[Sql] = []
    for number, (key, value) in enumerate(zip(sort, after.keys, strict=True)):
        name = f"k{number}"
        if value is None:
            same.append((f"{name} IS NULL", ()))
            continue
        further: Sql = (f"({name} {'<' if key.descending else '>'} ? OR {name} IS NULL)", (value,))
        parts.append(both(*same, further))
        same.append((f"{name} = ?", (value,)))
    return either(*parts, both(*same, (f"{placed} > ?", (place,))))
