"""Finds rows in the order of sort keys: yields ``(rid, sort value, ...)`` of each row.

Usually the sort values of all rows found are looked up, and the rows sorted.  If nothing limits a search with one key to
few rows, the index of that key is read in its own order instead, and then the rows without a value in row order.  The values of chained
keys are always looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position, SortKey, SortStep
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store import conditions
from fhir_server.store.conditions import after_prefix
from fhir_server.store.sqlite import newest, planner
from fhir_server.store.sqlite.ranges import AccessPath, path_by_rows, ranges_after
from fhir_server.store.sqlite.rows import TABLES
from fhir_server.store.sqlite.schema import MAX_RID
from fhir_server.store.sqlite.translate import FALSE, TRUE, FilterTranslator, Sql, both, class_admitted, either, of_row, parameter_number

_COLUMN: Final = {"token": "code", "reference": "target", "string": "folded", "date": "lo", "quantity": "number"}
# for each column the index in the order of one parameter's values; the index of references starts with the target instead
_SORTED_INDEX: Final = {"code": "tok_value", "folded": "str_value", "lo": "dat_lo", "hi": "dat_value", "number": "num_value"}

Found = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class SortedQuery:
    """A sorted search: at most ``limit`` rows after the position ``after``, whose row has the place ``place``."""

    translator: FilterTranslator
    where: Filter
    visibility: Visibility
    reader: planner.RowReader
    sort: tuple[SortKey, ...]
    limit: int
    after: Position | None
    place: int

    def rows(self) -> Found:
        """Return ``(rid, sort value, ...)`` of each row found."""
        paths = planner.access_paths_of_all(self.translator, self.where, self.visibility, self.reader)
        clauses = conditions.effective_clauses(self.visibility)
        key = self.sort[0]
        is_plain = len(self.sort) == 1 and not key.steps
        if is_plain and len(clauses) == 1 and column(key) in _SORTED_INDEX and any(path.is_broad for path in paths):
            number = parameter_number(self.translator.type, key.param, key.kind, self.translator.names)
            if number is not None:
                return self._walk_index(clauses[0], key, number)
        if self._has_newest_index(clauses):
            paths = newest.few_or_newest(self, paths, clauses)
        return self._sort_rows(paths, clauses) if paths else []

    def _has_newest_index(self, clauses: Sequence[VisibilityClause]) -> bool:
        (key, *more), one_set = self.sort, len({clause.classes for clause in clauses}) == 1
        return (
            key.kind == "date"
            and key.descending
            and not (more or key.steps)
            and one_set
            and (self.after is None or self.after.keys[0] is not None)
        )

    def _sort_rows(self, paths: tuple[AccessPath, ...], clauses: Sequence[VisibilityClause]) -> Found:
        text, args = union(paths)
        place_column = f"rid & {planner.place_bits(self.visibility)}"
        values = [sort_value(self.translator, key, clauses, self.visibility.now) for key in self.sort]
        columns = "".join([f", {value} AS k{place}" for place, (value, _) in enumerate(values)])
        after, after_args = ("1", ()) if self.after is None else _after_position(self.sort, self.after, place_column, self.place)
        order = "".join([f"k{place}{' DESC' if key.descending else ''} NULLS LAST, " for place, key in enumerate(self.sort)])
        listed = "".join([f", k{place}" for place in range(len(self.sort))])
        sql = (
            f"WITH h AS MATERIALIZED (SELECT c.rid AS rid{columns} FROM ({text}) c)"
            f" SELECT rid{listed} FROM h WHERE {after} ORDER BY {order}{place_column} LIMIT ?"
        )
        of_values = [arg for _, of_value in values for arg in of_value]
        return self.reader.rows(sql, (*of_values, *args, *after_args, self.limit))

    def _walk_index(self, clause: VisibilityClause, key: SortKey, number: int) -> Found:
        wanted = both(self.translator.condition(self.where, clause.classes), self.translator.covers(clause, self.visibility.now))
        of_param = both(("{0}.rid = r.rid AND {0}.param = ?", (number,)), class_admitted("{0}", clause.classes))
        found: Found = []
        place = self.place
        if self.after is None or self.after.keys[0] is not None:
            found = self._with_value(key, of_param, wanted)
            place = -1
        if len(found) < self.limit:
            none = f"NOT EXISTS (SELECT 1 FROM {of_row(TABLES[key.kind][0], 'x')} WHERE {of_param[0].format('x')})"
            bands = self.translator.admitted_bands(clause)
            path = path_by_rows(
                both(wanted, (none, of_param[1])), ranges_after(place, bands.both), self.translator.type_number if bands.is_all else None
            )
            without_value = self.reader.rows(*path.select_first(self.limit - len(found), MAX_RID))
            found += [(rid, None) for (rid,) in without_value]
        return found

    def _with_value(self, key: SortKey, of_param: Sql, wanted: Sql) -> Found:
        table, name = TABLES[key.kind][0], column(key)
        better, order = ">" if key.by_greatest else "<", " DESC" if key.descending else ""
        other = f"NOT EXISTS (SELECT 1 FROM {of_row(table, 'y')} WHERE {of_param[0].format('y')} AND y.{name} {better} x.{name})"
        text, args = both((of_param[0].format("x"), of_param[1]), self._after_value(key, name), wanted, (other, of_param[1]))
        sql = (
            f"SELECT DISTINCT x.rid, x.{name} FROM {table} x INDEXED BY {_SORTED_INDEX[name]} CROSS JOIN res r"
            f" WHERE {text} ORDER BY x.{name}{order}, x.rid LIMIT ?"
        )
        return self.reader.rows(sql, (*args, self.limit))

    def _after_value(self, key: SortKey, name: str) -> Sql:
        if self.after is None:
            return TRUE
        value = self.after.keys[0]
        reached, passed = ("<=", "<") if key.descending else (">=", ">")
        return f"x.{name} {reached} ? AND (x.{name} {passed} ? OR x.rid > ?)", (value, value, self.place)


def in_order(paths: tuple[AccessPath, ...], visibility: Visibility, limit: int) -> Sql:
    """Return the statement for at most ``limit`` rids of these paths in the order of places."""
    bits = planner.place_bits(visibility)
    patients = {path.patient for path in paths}
    if not any(path.front for path in paths) and (not visibility.limited_to_patients or (len(patients) == 1 and None not in patients)):
        text, args = union(paths)
        return f"{text} ORDER BY 1 LIMIT ?", (*args, limit)
    firsts = [path.select_first(limit, bits) for path in paths]
    if len(firsts) == 1:
        return firsts[0]
    text = " UNION ".join([f"SELECT rid FROM ({text})" for text, _ in firsts])
    args = tuple([value for _, values in firsts for value in values])
    return f"SELECT rid FROM ({text}) ORDER BY rid & {bits} LIMIT ?", (*args, limit)


def union(paths: tuple[AccessPath, ...]) -> Sql:
    """Return the statement for the rids of all paths, each once."""
    text = " UNION ".join([path.select(distinct=len(paths) == 1) for path in paths])
    return text, tuple([arg for path in paths for arg in path.args])


def column(key: SortKey) -> str:
    """Return the column of its table that a key sorts by."""
    if key.param == "_id":
        return "id"
    return "hi" if key.kind == "date" and key.by_greatest else _COLUMN[key.kind]


def sort_value(meaning: FilterTranslator, key: SortKey, clauses: Sequence[VisibilityClause], now: int, row: str = "c") -> Sql:
    """Return the sort value of this row: its least or greatest entry that a clause which covers the row admits.

    ``row``: an alias with the column ``rid``.
    """
    if key.steps:
        return _chained_value(meaning, key, clauses, now, row)
    if key.param == "_id":
        return f"(SELECT id FROM res WHERE rid = {row}.rid)", ()
    number = parameter_number(meaning.type, key.param, key.kind, meaning.names)
    if number is None:
        return "NULL", ()
    value = f"SELECT {'max' if key.by_greatest else 'min'}(x.{column(key)})"
    entries, (text, args) = _entries_of(meaning, TABLES[key.kind][0], number, clauses, now, row)
    return f"({value} FROM {entries} WHERE {text})", args


def _entries_of(
    meaning: FilterTranslator, table: str, number: int, clauses: Sequence[VisibilityClause], now: int, row: str
) -> tuple[str, Sql]:
    """Return the FROM clause and the condition for the entries ``x`` of a row's parameter that a clause which covers the row admits."""
    of_param: Sql = (f"x.rid = {row}.rid AND x.param = ?", (number,))
    if len({clause.classes for clause in clauses}) == 1:
        return of_row(table, "x"), both(of_param, class_admitted("x", clauses[0].classes))
    admitted = either(*[both(class_admitted("x", clause.classes), meaning.covers(clause, now)) for clause in clauses])
    return f"{of_row(table, 'x')} CROSS JOIN res r", both(of_param, (f"r.rid = {row}.rid", ()), admitted)


def _chained_value(meaning: FilterTranslator, key: SortKey, clauses: Sequence[VisibilityClause], now: int, row: str) -> Sql:
    """Return the least or greatest of the values to which the steps of a key lead."""
    found = [_value_through(meaning, step, clauses, now, row) for step in key.steps]
    led = [value for value in found if value is not None]
    if not led:
        return "NULL", ()
    union = " UNION ALL ".join([f"SELECT {text} AS v" for text, _ in led])
    return f"(SELECT {'max' if key.by_greatest else 'min'}(v) FROM ({union}))", tuple([arg for _, args in led for arg in args])


def _value_through(meaning: FilterTranslator, step: SortStep, clauses: Sequence[VisibilityClause], now: int, row: str) -> Sql | None:
    """Return the value of the rows to which a step leads; None if it leads nowhere."""
    target, number = FilterTranslator(step.type, meaning.names), parameter_number(meaning.type, step.param, "reference", meaning.names)
    sight = step.visibility or Visibility()
    seen = conditions.effective_clauses(sight)
    visible = either(*[target.covers(clause, sight.now) for clause in seen])
    if number is None or target.type_number is None or visible == FALSE:
        return None
    other = f"{row}_"
    value, value_args = sort_value(target, step.key, seen, sight.now, other)
    entries, (text, args) = _entries_of(meaning, "ref", number, clauses, now, row)
    prefix = step.type + "/"
    named, named_args = f"{other}.type = ? AND {other}.id = substr(x.target, ?)", (target.type_number, len(prefix) + 1)
    sql = (
        f"(SELECT {'max' if step.key.by_greatest else 'min'}({value}) FROM {entries} CROSS JOIN res {other} INDEXED BY res_id"
        f" WHERE {text} AND x.target >= ? AND x.target < ? AND {named}"
        f" AND EXISTS (SELECT 1 FROM res r WHERE r.rid = {other}.rid AND {visible[0]}))"
    )
    return sql, (*value_args, *args, prefix, after_prefix(prefix), *named_args, *visible[1])


def _after_position(sort: tuple[SortKey, ...], after: Position, place_column: str, place: int) -> Sql:
    """Return the condition that a row comes after this position: by the first key that differs, else by its place."""
    parts: list[Sql] = []
    same: list[Sql] = []
    for number, (key, value) in enumerate(zip(sort, after.keys, strict=True)):
        name = f"k{number}"
        if value is None:
            same.append((f"{name} IS NULL", ()))
            continue
        later: Sql = (f"({name} {'<' if key.descending else '>'} ? OR {name} IS NULL)", (value,))
        parts.append(both(*same, later))
        same.append((f"{name} = ?", (value,)))
    return either(*parts, both(*same, (f"{place_column} > ?", (place,))))
