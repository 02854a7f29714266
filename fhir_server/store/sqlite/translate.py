"""Translates the condition language to SQL, with the same meaning as :mod:`fhir_server.search.match`.

In conditions, ``r`` is a row of ``res`` and ``x`` an entry in an index table.  The text of a statement depends on the shape
of a condition, not on its values, so that SQLite's cache of compiled statements is effective.  Admitted classes are a blob
argument with one byte per class; that was faster than temporary tables and lists at every size measured.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import apsw

from fhir_server.search.filters import (
    URL_ENDS,
    AllOf,
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    NearTo,
    Not,
    NumbersAre,
    OfPatient,
    Predicate,
    Present,
    QuantityIs,
    ReferredBy,
    RefersTo,
    RefersToMatch,
    TextIs,
    TokenIs,
    UnderUrl,
    WordIs,
)
from fhir_server.search.predicates import KIND
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store import conditions
from fhir_server.store.conditions import after_prefix
from fhir_server.store.sqlite.interning import AdmittedBands, Names
from fhir_server.store.sqlite.rows import TABLES

Sql = tuple[str, tuple[Any, ...]]
TRUE: Final[Sql] = ("1", ())
FALSE: Final[Sql] = ("0", ())


def both(*parts: Sql) -> Sql:
    """Return the condition that all of these hold."""
    return _join(" AND ", [part for part in parts if part != TRUE], FALSE, TRUE)


def either(*parts: Sql) -> Sql:
    """Return the condition that any of these holds."""
    return _join(" OR ", [part for part in parts if part != FALSE], TRUE, FALSE)


def _join(word: str, parts: Sequence[Sql], absorbing: Sql, neutral: Sql) -> Sql:
    if absorbing in parts:
        return absorbing
    if len(parts) > 50:  # SQLite limits the depth of an expression, and a chain is as deep as it is long
        half = len(parts) // 2
        parts = [_join(word, parts[:half], absorbing, neutral), _join(word, parts[half:], absorbing, neutral)]
    if not parts:
        return neutral
    if len(parts) == 1:
        return parts[0]
    return "(" + word.join([text for text, _ in parts]) + ")", tuple([arg for _, args in parts for arg in args])


def of_row(table: str, alias: str) -> str:
    """Return the FROM clause for the entries of single rows.

    Left to itself, SQLite may read a range of values instead, of all rows of the store.
    """
    return f"{table} {alias} INDEXED BY sqlite_autoindex_{table}_1"


def among(column: str, values: Iterable[str] | array[int]) -> Sql:
    """Return the condition that the column holds one of these."""
    if isinstance(values, array):
        return _among(column, values)
    listed = tuple(values)
    unlistable = [value for value in listed if "\0" in value]
    if unlistable:
        listed = tuple([value for value in listed if "\0" not in value])
        return either(_among(column, listed), *[(f"{column} = ?", (value,)) for value in unlistable])
    return _among(column, listed)


def _among(column: str, listed: tuple[str, ...] | array[int]) -> Sql:
    if not listed:
        return FALSE
    if len(listed) == 1:
        return f"{column} = ?", (listed[0],)
    return f"{column} IN (SELECT value FROM carray(?))", (apsw.carray(listed),)


def ids_array(ids: Iterable[str]) -> Any:
    """Return logical ids as a table.  A text with U+0000, which carray does not take, is no id of a row."""
    return apsw.carray(tuple([id for id in ids if "\0" not in id]) or ("",))


@lru_cache(512)
def union_of(classes: tuple[frozenset[int], ...]) -> frozenset[int]:
    """Return all of these classes."""
    return frozenset[int]().union(*classes)


@lru_cache(512)
def class_mask(classes: frozenset[int]) -> bytes:
    """Return one byte for each class up to the greatest of these: 1 if it is one of them, else 0."""
    bytes_ = bytearray(max(classes, default=-1) + 1)
    for number in classes:
        bytes_[number] = 1
    return bytes(bytes_)


def class_admitted(alias: str, classes: frozenset[int]) -> Sql:
    """Return the condition that the class of this row or entry is one of these."""
    return f"substr(?, {alias}.vclass + 1, 1) = x'01'", (class_mask(classes),)


def parameter_number(type: str, param: str, kind: str, names: Names) -> int | None:
    """Return the number of a search parameter with entries of this kind; None if no row has such an entry."""
    return names.number(f"{kind}:{type}.{param}")


class FilterTranslator:
    """Translates conditions on rows of one type."""

    def __init__(self, type: str, names: Names) -> None:
        self.type = type
        self.names = names
        self.type_number = names.number("type:" + type)

    def condition(self, filter: Filter, classes: frozenset[int]) -> Sql:
        """Return the condition that the row ``r`` meets ``filter``, judged by entries of these classes alone.

        Raises TypeError for an unknown node.
        """
        match filter:
            case Has(param, predicate):
                kind = KIND.get(type(predicate))
                if kind is None:
                    raise TypeError(f"not a predicate: {predicate!r}")
                return self._entry(param, kind, predicate_condition(predicate, self.names), classes)
            case Present(param, kind):
                return self._entry(param, kind, TRUE, classes)
            case IdIs(ids):
                return among("r.id", ids)
            case OfPatient(patients):
                return self.of_patient(patients)
            case AllOf(parts):
                return both(*[self.condition(part, classes) for part in parts])
            case AnyOf(parts):
                return either(*self._alternatives(parts, classes))
            case Not(part):
                return self._negated(part, classes)
            case RefersToMatch(param, target, where, visibility):
                return self._refers_to_match(param, FilterTranslator(target, self.names), where, visibility or Visibility(), classes)
            case ReferredBy(source, param, where, visibility):
                return self._referred_by(FilterTranslator(source, self.names), param, where, visibility or Visibility())
        raise TypeError(f"not a condition: {filter!r}")

    def _alternatives(self, parts: tuple[Filter, ...], classes: frozenset[int]) -> Iterator[Sql]:
        """Yield the conditions of the parts; those on one parameter as one lookup, because a value set may have a thousand codes."""
        predicates: dict[tuple[str, str], list[Sql]] = {}
        for part in parts:
            if isinstance(part, Has) and type(part.predicate) in KIND:
                predicates.setdefault((part.param, KIND[type(part.predicate)]), []).append(predicate_condition(part.predicate, self.names))
            else:
                yield self.condition(part, classes)
        for (param, kind), alternatives in predicates.items():
            yield self._entry(param, kind, either(*alternatives), classes)

    def _negated(self, part: Filter, classes: frozenset[int]) -> Sql:
        text, args = self.condition(part, classes)
        return {"0": TRUE, "1": FALSE}.get(text) or (f"NOT ({text})", args)

    def _entry(self, param: str, kind: str, predicate: Sql, classes: frozenset[int]) -> Sql:
        number = parameter_number(self.type, param, kind, self.names)
        if number is None or predicate == FALSE:
            return FALSE
        text, args = both(("x.rid = r.rid AND x.param = ?", (number,)), predicate, class_admitted("x", classes))
        return f"EXISTS (SELECT 1 FROM {of_row(TABLES[kind][0], 'x')} WHERE {text})", args

    def _refers_to_match(self, param: str, target: FilterTranslator, where: Filter, visibility: Visibility, classes: frozenset[int]) -> Sql:
        number = parameter_number(self.type, param, "reference", self.names)
        visible = either(*[target._meets(where, clause, visibility.now) for clause in conditions.effective_clauses(visibility)])
        if number is None or target.type_number is None or visible == FALSE:
            return FALSE
        prefix = target.type + "/"
        entry = "x.rid = r.rid AND x.param = ? AND x.target >= ? AND x.target < ?"
        text, args = both((entry, (number, prefix, after_prefix(prefix))), class_admitted("x", classes))
        row, row_args = both(("r.type = ? AND r.id = substr(x.target, ?)", (target.type_number, len(prefix) + 1)), visible)
        named = f"EXISTS (SELECT 1 FROM res r INDEXED BY res_id WHERE {row})"
        return f"EXISTS (SELECT 1 FROM {of_row('ref', 'x')} WHERE {text} AND {named})", (*args, *row_args)

    def _referred_by(self, source: FilterTranslator, param: str, where: Filter, visibility: Visibility) -> Sql:
        number = parameter_number(source.type, param, "reference", self.names)
        parts: list[Sql] = []
        for clause in conditions.effective_clauses(visibility) if number is not None else ():
            bands = source.admitted_bands(clause).both
            met, met_args = source._meets(where, clause, visibility.now)
            if not bands or met == "0":
                continue
            entry = "x.target = ? || r.id AND x.param = ? AND x.band = b.value"
            text, args = both((entry, (self.type + "/", number)), class_admitted("x", clause.classes))
            row = f"EXISTS (SELECT 1 FROM res r WHERE r.rid = x.rid AND {met})"
            sql = f"EXISTS (SELECT 1 FROM carray(?) b CROSS JOIN ref x INDEXED BY ref_value WHERE {text} AND {row})"
            parts.append((sql, (apsw.carray(bands), *args, *met_args)))
        return either(*parts)

    def _meets(self, where: Filter, clause: VisibilityClause, now: int) -> Sql:
        """Return the condition that the clause admits the row, and that the row meets ``where`` by what the clause admits."""
        return both(self.covers(clause, now), self.condition(where, clause.classes))

    def of_patient(self, patients: frozenset[str]) -> Sql:
        """Return the condition that the row belongs to one of these, as its first patient or another."""
        numbers = self.names.patients(patients)
        if not numbers:
            return FALSE
        others, args = among("a.patient", numbers)
        return either(
            among("(r.rid >> 32)", numbers),
            (f"EXISTS (SELECT 1 FROM also a WHERE a.rid = r.rid AND {others})", args),
        )

    def admitted_bands(self, clause: VisibilityClause) -> AdmittedBands:
        """Return the bands of the rows that the clause admits by their class."""
        return self.names.admitted_bands(self.type_number or 0, clause.classes)

    def admits_row(self, clause: VisibilityClause, now: int) -> Sql:
        """Return the condition that the clause admits the row's class and release."""
        return both(class_admitted("r", clause.classes), ("r.release_at <= ?", (now,)) if clause.released_only else TRUE)

    def covers(self, clause: VisibilityClause, now: int) -> Sql:
        """Return the condition that the clause admits the row."""
        owned = TRUE if clause.patients is None else self.of_patient(clause.patients)
        return both(self.admits_row(clause, now), owned, self.condition(clause.where, clause.classes))


def predicate_condition(predicate: Predicate, names: Names) -> Sql:
    """Return the condition that the entry ``x`` meets the predicate."""
    return _PREDICATES[type(predicate)](predicate, names)


def _token(predicate: TokenIs, names: Names) -> Sql:
    code: Sql = TRUE if predicate.code is None else ("x.code = ?", (predicate.code,))
    return both(code, _system(predicate.system, names))


def _system(system: str | None, names: Names) -> Sql:
    if system is None:
        return TRUE
    number = names.system(system)
    return FALSE if number is None else ("x.system = ?", (number,))


def _under(predicate: UnderUrl, names: Names) -> Sql:
    below = [("x.target >= ? AND x.target < ?", (predicate.url + end, after_prefix(predicate.url + end))) for end in URL_ENDS]
    return either(("x.target = ?", (predicate.url,)), *below)


def _text(predicate: TextIs, names: Names) -> Sql:
    return _TEXT[predicate.mode](predicate.value)


def _prefix(value: str) -> Sql:
    end = after_prefix(value)
    return ("x.folded >= ?", (value,)) if end is None else ("x.folded >= ? AND x.folded < ?", (value, end))


_TEXT: Final[dict[str, Callable[[str], Sql]]] = {
    "prefix": _prefix,
    "exact": lambda value: ("x.exact = ?", (value,)),
    "equal": lambda value: ("x.folded = ?", (value,)),
    "contains": lambda value: ("instr(x.folded, ?) > 0", (value,)),
}

_WITHIN: Final = "(x.lo >= ? AND x.hi <= ?)"
_DATE: Final[dict[str, Callable[[int, int], Sql]]] = {
    "eq": lambda lo, hi: (_WITHIN, (lo, hi)),
    "ne": lambda lo, hi: (f"NOT {_WITHIN}", (lo, hi)),
    "gt": lambda lo, hi: ("x.hi > ?", (hi,)),
    "lt": lambda lo, hi: ("x.lo < ?", (lo,)),
    "ge": lambda lo, hi: (f"(x.hi > ? OR {_WITHIN})", (hi, lo, hi)),
    "le": lambda lo, hi: (f"(x.lo < ? OR {_WITHIN})", (lo, lo, hi)),
    "sa": lambda lo, hi: ("x.lo >= ?", (hi,)),
    "eb": lambda lo, hi: ("x.hi <= ?", (lo,)),
    "ap": lambda lo, hi: ("x.lo < ? AND x.hi > ?", (hi, lo)),
}


def _date(predicate: DateIs, names: Names) -> Sql:
    return _DATE[predicate.prefix](predicate.lo, predicate.hi)


_NUMBER: Final[dict[str, Callable[[float, float, float], Sql]]] = {
    "eq": lambda lo, hi, value: in_range(lo, hi),
    "ne": lambda lo, hi, value: (f"NOT ({in_range(lo, hi)[0]})", in_range(lo, hi)[1]),
    "gt": lambda lo, hi, value: ("x.number > ?", (value,)),
    "lt": lambda lo, hi, value: ("x.number < ?", (value,)),
    "ge": lambda lo, hi, value: ("x.number >= ?", (value,)),
    "le": lambda lo, hi, value: ("x.number <= ?", (value,)),
    "sa": lambda lo, hi, value: ("x.number > ?", (value,)),
    "eb": lambda lo, hi, value: ("x.number < ?", (value,)),
    "ap": lambda lo, hi, value: ("x.number >= ? AND x.number <= ?", (lo, hi)),
}


def in_range(lo: float, hi: float) -> Sql:
    """Return the condition that the number is in [lo, hi), or equals lo if that is empty."""
    return ("x.number = ?", (lo,)) if lo == hi else ("x.number >= ? AND x.number < ?", (lo, hi))


def _quantity(predicate: QuantityIs, names: Names) -> Sql:
    return both(_number(predicate), _unit(predicate, names))


def _number(predicate: QuantityIs) -> Sql:
    return _NUMBER[predicate.prefix](float(predicate.lo), float(predicate.hi), float(predicate.value))


def _numbers(predicate: NumbersAre, names: Names) -> Sql:
    (first, first_args), (second, second_args) = _number(predicate.first), _number(predicate.second)
    return both((first.replace("x.number", "x.z"), first_args), (second.replace("x.number", "x.x"), second_args))


def _unit(predicate: QuantityIs, names: Names) -> Sql:
    if predicate.system is not None:
        return both(_system(predicate.system, names), TRUE if predicate.unit is None else ("x.code = ?", (predicate.unit,)))
    return TRUE if predicate.unit is None else ("(x.code = ? OR x.unit = ?)", (predicate.unit, predicate.unit))


_APART: Final = "(x.x - ?) * (x.x - ?) + (x.y - ?) * (x.y - ?) + (x.z - ?) * (x.z - ?)"


def _near(near: NearTo, names: Names) -> Sql:
    x, y, z = float(near.x), float(near.y), float(near.z)
    low, high = near.bounds
    return f"x.z >= ? AND x.z <= ? AND {_APART} <= ?", (float(low), float(high), x, x, y, y, z, z, float(near.square))


_PREDICATES: Final[dict[type, Callable[[Any, Names], Sql]]] = {
    TokenIs: _token,
    RefersTo: lambda predicate, names: among("x.target", predicate.targets),
    UnderUrl: _under,
    TextIs: _text,
    NearTo: _near,
    NumbersAre: _numbers,
    WordIs: lambda predicate, names: ("instr(x.words, ?) > 0", (f" {predicate.word} ",)),
    DateIs: _date,
    QuantityIs: _quantity,
}
