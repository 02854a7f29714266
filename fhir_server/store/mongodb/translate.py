"""The condition language as MongoDB queries.  :mod:`fhir_server.search.match` is the meaning; this file only has to agree.

An entry's parameter, value and class are tested on the same element, by one ``$elemMatch``.  What the query planner
needs to bound an index is said as well where it follows from the test (an entry's ``hi`` is greater than its ``lo``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.errors import Problem
from fhir_server.search.filters import (
    AllOf,
    AnyOf,
    DateIs,
    Filter,
    Has,
    IdIs,
    Not,
    OfPatient,
    Present,
    QuantityIs,
    RefersTo,
    TextIs,
    TokenIs,
)
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store.mongodb.documents import ARRAYS, name
from fhir_server.store.row_order import patient_number

Query = dict[str, Any]
TRUE: Final[Query] = {}
FALSE: Final[Query] = {"$alwaysFalse": 1}

_KIND: Final[dict[Any, str]] = {TokenIs: "token", RefersTo: "reference", TextIs: "string", DateIs: "date", QuantityIs: "quantity"}
_LONGEST: Final = 8000  # letters of a text looked for inside others: the server's bound on patterns


def both(*parts: Query) -> Query:
    """All of these."""
    kept = [part for part in parts if part != TRUE]
    if FALSE in kept:
        return FALSE
    if len(kept) < 2:
        return kept[0] if kept else TRUE
    return {"$and": [inner for part in kept for inner in (part["$and"] if part.keys() == {"$and"} else (part,))]}


def either(*parts: Query) -> Query:
    """Any of these."""
    if TRUE in parts:
        return TRUE
    kept = [part for part in parts if part != FALSE]
    if len(kept) < 2:
        return kept[0] if kept else FALSE
    return {"$or": kept}


def negated(part: Query) -> Query:
    if part == TRUE:
        return FALSE
    return TRUE if part == FALSE else {"$nor": [part]}


def among(member: str, values: Iterable[Any]) -> Query:
    """The member holds one of these (an array: some element of it is one of these)."""
    listed = sorted(values)
    if not listed:
        return FALSE
    return {member: listed[0]} if len(listed) == 1 else {member: {"$in": listed}}


@dataclass(frozen=True, slots=True)
class AccessPath:
    """One part of an answer: rows that one window shows and that meet the condition, all with ``n`` in ``numbers`` if given."""

    query: Query
    numbers: tuple[int, ...] | None = None


def access_paths(type: str, where: Filter, visibility: Visibility) -> tuple[AccessPath, ...]:
    """Parts that together are the answer; those that cannot hold anything are left out."""
    return tuple([arm for clause in clauses(visibility) for arm in _of_clause(type, where, clause, visibility.now)])


def clauses(visibility: Visibility) -> tuple[VisibilityClause, ...]:
    """The windows without those that show nothing or are repeated."""
    return tuple(dict.fromkeys(w for w in visibility.clauses if w.classes and (w.patients is None or w.patients)))


def through(type: str, where: Filter, visibility: Visibility, clause: VisibilityClause) -> Query:
    """What is an answer, through whichever window, and is shown by this one."""
    own = _of_clause(type, where, clause, visibility.now)
    others = [other for other in clauses(visibility) if other != clause]
    both_show = [arm for other in others for arm in _of_two(type, where, clause, other, visibility.now)]
    return either(*[arm.query for arm in (*own, *both_show)])


def _of_clause(type: str, where: Filter, clause: VisibilityClause, now: int) -> tuple[AccessPath, ...]:
    wanted = both(_shown(type, clause, now), condition(type, where, clause.classes))
    owners = [part.patients for part in (*_conjuncts(where), *_conjuncts(clause.where)) if isinstance(part, OfPatient)]
    return _placed(wanted, min([*owners, *_patients(clause)], key=len, default=None))


def _of_two(type: str, where: Filter, clause: VisibilityClause, other: VisibilityClause, now: int) -> tuple[AccessPath, ...]:
    """Rows that both windows show, and that are an answer through the other."""
    wanted = both(_shown(type, clause, now), _shown(type, other, now), condition(type, where, other.classes))
    if clause.patients is not None and other.patients is not None and clause.patients.isdisjoint(other.patients):
        # of two patients then, one of whom is not the first
        wanted = both(wanted, among("others", clause.patients | other.patients))
        return () if wanted == FALSE else (AccessPath(wanted),)
    return _placed(wanted, min([*_patients(clause), *_patients(other)], key=len, default=None))


def _patients(clause: VisibilityClause) -> tuple[frozenset[str], ...]:
    return () if clause.patients is None else (clause.patients,)


def _conjuncts(filter: Filter) -> Iterator[Filter]:
    """The conditions that must all hold for this one to hold."""
    if isinstance(filter, AllOf):
        for part in filter.parts:
            yield from _conjuncts(part)
    else:
        yield filter


def _placed(wanted: Query, patients: frozenset[str] | None) -> tuple[AccessPath, ...]:
    """Rows whose first patient is one of these lie together; those that are also somebody else's have an index of their own."""
    if wanted == FALSE or (patients is not None and not patients):
        return ()
    if patients is None:
        return (AccessPath(wanted),)
    numbers = tuple(sorted({patient_number(patient) for patient in patients}))
    return AccessPath(both(wanted, among("n", numbers)), numbers), AccessPath(both(wanted, among("others", patients)))


def _shown(type: str, clause: VisibilityClause, now: int) -> Query:
    """The window shows the row."""
    owned = TRUE if clause.patients is None else among("patients", clause.patients)
    released = {"release": {"$lte": now}} if clause.released_only else TRUE
    return both({"type": type}, owned, among("class", clause.classes), released, condition(type, clause.where, clause.classes))


def condition(type: str, filter: Filter, classes: frozenset[int]) -> Query:
    """As :func:`fhir_server.search.match.matches`.  Raises TypeError for an unknown node."""
    match filter:
        case Has(param, test):
            return _entry(param, *_passes(test), classes)
        case Present(param):
            return either(*[_entry(param, array, TRUE, classes) for array, _ in ARRAYS.values()])
        case IdIs(ids):
            return among("_id", [name(type, id) for id in ids])
        case OfPatient(patients):
            return among("patients", patients)
        case AllOf(parts):
            return both(*[condition(type, part, classes) for part in parts])
        case AnyOf(parts):
            return either(*_alternatives(type, parts, classes))
        case Not(part):
            return negated(condition(type, part, classes))
    raise TypeError(f"not a condition: {filter!r}")


def _alternatives(type: str, parts: tuple[Filter, ...], classes: frozenset[int]) -> Iterator[Query]:
    """The parts; codes of one parameter and system as one look-up, for a value set may have a thousand of them."""
    codes: dict[tuple[str, str | None], list[str]] = {}
    for part in parts:
        if isinstance(part, Has) and isinstance(part.predicate, TokenIs) and part.predicate.code is not None:
            codes.setdefault((part.param, part.predicate.system), []).append(part.predicate.code)
        else:
            yield condition(type, part, classes)
    for (param, system), several in codes.items():
        yield _entry(param, "tok", {**among("v", set(several)), **_system(system)}, classes)


def _entry(param: str, array: str, test: Query, classes: frozenset[int]) -> Query:
    if test == FALSE or not classes:
        return FALSE
    return {array: {"$elemMatch": {"p": param, **test, **among("c", classes)}}}


def _passes(test: Any) -> tuple[str, Query]:
    kind = _KIND.get(test.__class__)
    if kind is None:
        raise TypeError(f"not a test: {test!r}")
    return ARRAYS[kind][0], _TESTS[kind](test)


def _token(test: TokenIs) -> Query:
    return {**({} if test.code is None else {"v": test.code}), **_system(test.system)}


def _system(system: str | None) -> Query:
    return {} if system is None else {"s": system}


def _text(test: TextIs) -> Query:
    return _TEXT[test.mode](test.value)


def _prefix(value: str) -> Query:
    end = after_prefix(value)
    return {"v": {"$gte": value}} if end is None else {"v": {"$gte": value, "$lt": end}}


def after_prefix(value: str) -> str | None:
    """The least string greater than all that start with ``value``; None if there is none."""
    kept = value.rstrip("\U0010ffff")
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # half characters (surrogates) are in no text


def _contains(value: str) -> Query:
    if len(value) > _LONGEST:
        raise Problem("invalid", f"A text to look for inside others has at most {_LONGEST} letters.")
    return {"v": {"$regex": _SPECIAL.sub(_quoted, value)}} if value else {}


def _quoted(found: re.Match[str]) -> str:
    return r"\x00" if found[0] == "\0" else "\\" + found[0]


_SPECIAL: Final = re.compile(r"[\x00-\x08\x0e-\x1f!-/:-@\[-`{-\x7f]")


_TEXT: Final[dict[str, Callable[[str], Query]]] = {"prefix": _prefix, "exact": lambda value: {"e": value}, "contains": _contains}

_DATE: Final[dict[str, Callable[[int, int], Query]]] = {
    "eq": lambda lo, hi: {"lo": {"$gte": lo, "$lte": hi}, "hi": {"$gte": lo, "$lte": hi}},
    "ne": lambda lo, hi: {"$or": [{"lo": {"$lt": lo}}, {"hi": {"$gt": hi}}]},
    "gt": lambda lo, hi: {"hi": {"$gt": hi}},
    "lt": lambda lo, hi: {"lo": {"$lt": lo}},
    "ge": lambda lo, hi: {"hi": {"$gte": lo}, "$or": [{"hi": {"$gt": hi}}, {"lo": {"$gte": lo}, "hi": {"$lte": hi}}]},
    "le": lambda lo, hi: {"lo": {"$lte": hi}, "$or": [{"lo": {"$lt": lo}}, {"lo": {"$gte": lo}, "hi": {"$lte": hi}}]},
    "sa": lambda lo, hi: {"lo": {"$gte": hi}, "hi": {"$gte": hi}},
    "eb": lambda lo, hi: {"hi": {"$lte": lo}, "lo": {"$lte": lo}},
    "ap": lambda lo, hi: {"lo": {"$lt": hi}, "hi": {"$gt": lo}},
}

_NUMBER: Final[dict[str, Callable[[float, float, float], Query]]] = {
    "eq": lambda lo, hi, value: {"v": in_range(lo, hi)},
    "ne": lambda lo, hi, value: {"v": {"$not": in_range(lo, hi)}},
    "gt": lambda lo, hi, value: {"v": {"$gt": value}},
    "lt": lambda lo, hi, value: {"v": {"$lt": value}},
    "ge": lambda lo, hi, value: {"v": {"$gte": value}},
    "le": lambda lo, hi, value: {"v": {"$lte": value}},
    "sa": lambda lo, hi, value: {"v": {"$gt": value}},
    "eb": lambda lo, hi, value: {"v": {"$lt": value}},
    "ap": lambda lo, hi, value: {"v": {"$gte": lo, "$lte": hi}},
}


def in_range(lo: float, hi: float) -> Query:
    """The number lies in [lo, hi), or is lo if that is empty."""
    return {"$eq": lo} if lo == hi else {"$gte": lo, "$lt": hi}


def _quantity(test: QuantityIs) -> Query:
    number = _NUMBER[test.prefix](float(test.lo), float(test.hi), float(test.value))
    if test.system is not None:
        return {**number, "s": test.system, **({} if test.unit is None else {"k": test.unit})}
    return number if test.unit is None else {**number, "$or": [{"k": test.unit}, {"u": test.unit}]}


_TESTS: Final[dict[str, Callable[[Any], Query]]] = {
    "token": _token,
    "reference": lambda test: among("v", test.targets),
    "string": _text,
    "date": lambda test: _DATE[test.prefix](test.lo, test.hi),
    "quantity": _quantity,
}
