"""The condition language in SQL.  :mod:`fhir_server.search.match` is the meaning; this file only has to agree with it.

Conditions are about the row ``r`` of ``res``; entries are ``x`` of an index table.  Texts depend on the shape
of a condition, never on its values, so that compiled statements are found again.  Allowed classes are a bound
blob with one byte a class: looked up in place, it beat temporary tables and lists at every size measured.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import apsw

from fhir_server.search.filters import (
    AllOf,
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    Not,
    OfPatient,
    Predicate,
    Present,
    QuantityIs,
    RefersTo,
    TextIs,
    TokenIs,
)
from fhir_server.search.visibility import VisibilityClause
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.rows import TABLES

Sql = tuple[str, tuple[Any, ...]]
TRUE: Final[Sql] = ("1", ())
FALSE: Final[Sql] = ("0", ())

KIND_OF: Final[dict[type, str]] = {
    TokenIs: "token",
    RefersTo: "reference",
    TextIs: "string",
    DateIs: "date",
    QuantityIs: "quantity",
}


def both(*parts: Sql) -> Sql:
    """All of these."""
    return _joined(" AND ", [part for part in parts if part != TRUE], FALSE, TRUE)


def either(*parts: Sql) -> Sql:
    """Any of these."""
    return _joined(" OR ", [part for part in parts if part != FALSE], TRUE, FALSE)


def _joined(word: str, parts: Sequence[Sql], absorbing: Sql, neutral: Sql) -> Sql:
    if absorbing in parts:
        return absorbing
    if len(parts) > 50:  # SQLite bounds the depth of an expression, and a chain is as deep as it is long
        half = len(parts) // 2
        parts = [_joined(word, parts[:half], absorbing, neutral), _joined(word, parts[half:], absorbing, neutral)]
    if not parts:
        return neutral
    if len(parts) == 1:
        return parts[0]
    return "(" + word.join([text for text, _ in parts]) + ")", tuple([arg for _, args in parts for arg in args])


def among(column: str, values: Iterable[str] | array[int]) -> Sql:
    """The column holds one of these."""
    many = values if isinstance(values, array) else tuple(values)
    if not many:
        return FALSE
    if len(many) == 1:
        return f"{column} = ?", (many[0],)
    return f"{column} IN (SELECT value FROM carray(?))", (apsw.carray(many),)


@lru_cache(512)
def mask(classes: frozenset[int]) -> bytes:
    """One byte for each class up to the greatest of these: 1 where it is one of them."""
    bytes_ = bytearray(max(classes, default=-1) + 1)
    for number in classes:
        bytes_[number] = 1
    return bytes(bytes_)


def admitted(alias: str, classes: frozenset[int]) -> Sql:
    """The class of this row, or entry, is one of these."""
    return f"substr(?, {alias}.vclass + 1, 1) = x'01'", (mask(classes),)


def param_number(type: str, param: str, kind: str, names: Names) -> int | None:
    return names.number(f"{kind}:{type}.{param}")


class Meaning:
    """Conditions on rows of one type, in SQL."""

    def __init__(self, type: str, names: Names) -> None:
        self.type = type
        self.names = names
        self.type_number = names.number("type:" + type)

    def condition(self, filter: Filter, classes: frozenset[int]) -> Sql:
        """As :func:`fhir_server.search.match.matches`, of the row ``r``.  Raises TypeError for an unknown node."""
        match filter:
            case Has(param, test):
                kind = KIND_OF.get(type(test))
                if kind is None:
                    raise TypeError(f"not a test: {test!r}")
                return self._entry(param, kind, passes(test, self.names), classes)
            case Present(param):
                return either(*[self._entry(param, kind, TRUE, classes) for kind in TABLES])
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
        raise TypeError(f"not a condition: {filter!r}")

    def _alternatives(self, parts: tuple[Filter, ...], classes: frozenset[int]) -> Iterator[Sql]:
        """The parts; those about the same parameter as one look-up, for a value set may have a thousand codes."""
        tests: dict[tuple[str, str], list[Sql]] = {}
        for part in parts:
            if isinstance(part, Has) and type(part.predicate) in KIND_OF:
                tests.setdefault((part.param, KIND_OF[type(part.predicate)]), []).append(passes(part.predicate, self.names))
            else:
                yield self.condition(part, classes)
        for (param, kind), alternatives in tests.items():
            yield self._entry(param, kind, either(*alternatives), classes)

    def _negated(self, part: Filter, classes: frozenset[int]) -> Sql:
        text, args = self.condition(part, classes)
        return {"0": TRUE, "1": FALSE}.get(text) or (f"NOT ({text})", args)

    def _entry(self, param: str, kind: str, test: Sql, classes: frozenset[int]) -> Sql:
        number = param_number(self.type, param, kind, self.names)
        if number is None or test == FALSE:
            return FALSE
        text, args = both(("x.rid = r.rid AND x.param = ?", (number,)), test, admitted("x", classes))
        return f"EXISTS (SELECT 1 FROM {TABLES[kind][0]} x WHERE {text})", args

    def of_patient(self, patients: frozenset[str]) -> Sql:
        """The row belongs to one of these, as its first patient or another."""
        numbers = self.names.patients(patients)
        if not numbers:
            return FALSE
        others, args = among("a.patient", numbers)
        return either(
            among("(r.rid >> 32)", numbers),
            (f"EXISTS (SELECT 1 FROM also a WHERE a.rid = r.rid AND {others})", args),
        )

    def row_shown(self, clause: VisibilityClause, now: int) -> Sql:
        """The window admits the row's class and release."""
        return both(admitted("r", clause.classes), ("r.release_at <= ?", (now,)) if clause.released_only else TRUE)

    def shown(self, clause: VisibilityClause, now: int) -> Sql:
        """The window shows the row."""
        owned = TRUE if clause.patients is None else self.of_patient(clause.patients)
        return both(self.row_shown(clause, now), owned, self.condition(clause.where, clause.classes))


def passes(test: Predicate, names: Names) -> Sql:
    """The entry ``x`` passes the test."""
    return _PASSES[type(test)](test, names)


def _token(test: TokenIs, names: Names) -> Sql:
    code: Sql = TRUE if test.code is None else ("x.code = ?", (test.code,))
    return both(code, _system(test.system, names))


def _system(system: str | None, names: Names) -> Sql:
    if system is None:
        return TRUE
    number = names.system(system)
    return FALSE if number is None else ("x.system = ?", (number,))


def _text(test: TextIs, names: Names) -> Sql:
    return _TEXT[test.mode](test.value)


def _prefix(value: str) -> Sql:
    end = after_prefix(value)
    return ("x.folded >= ?", (value,)) if end is None else ("x.folded >= ? AND x.folded < ?", (value, end))


def after_prefix(value: str) -> str | None:
    """The least string greater than all that start with ``value``; None if there is none."""
    kept = value.rstrip("\U0010ffff")
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # half characters (surrogates) are in no text


_TEXT: Final[dict[str, Callable[[str], Sql]]] = {
    "prefix": _prefix,
    "exact": lambda value: ("x.exact = ?", (value,)),
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


def _date(test: DateIs, names: Names) -> Sql:
    return _DATE[test.prefix](test.lo, test.hi)


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
    """The number lies in [lo, hi), or is lo if that is empty."""
    return ("x.number = ?", (lo,)) if lo == hi else ("x.number >= ? AND x.number < ?", (lo, hi))


def _quantity(test: QuantityIs, names: Names) -> Sql:
    number = _NUMBER[test.prefix](float(test.lo), float(test.hi), float(test.value))
    return both(number, _unit(test, names))


def _unit(test: QuantityIs, names: Names) -> Sql:
    if test.system is not None:
        return both(_system(test.system, names), TRUE if test.unit is None else ("x.code = ?", (test.unit,)))
    return TRUE if test.unit is None else ("(x.code = ? OR x.unit = ?)", (test.unit, test.unit))


_PASSES: Final[dict[type, Callable[[Any, Names], Sql]]] = {
    TokenIs: _token,
    RefersTo: lambda test, names: among("x.target", test.targets),
    TextIs: _text,
    DateIs: _date,
    QuantityIs: _quantity,
}
