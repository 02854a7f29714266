"""Translates the condition language to MongoDB queries, with the same meaning as :mod:`fhir_server.search.match`.

One ``$elemMatch`` tests an entry's parameter, value and class on the same array element.  Queries also contain implied
conditions that let the query planner limit the part of an index it reads (an entry's ``hi`` is greater than its ``lo``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from fhir_server.search.filters import (
    URL_ENDS,
    AllOf,
    AnyOf,
    Filter,
    Has,
    IdIs,
    NearTo,
    Not,
    NumbersAre,
    OfPatient,
    Present,
    QuantityIs,
    TextIs,
    TokenIs,
    UnderUrl,
)
from fhir_server.search.predicates import KIND
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store import conditions
from fhir_server.store.conditions import after_prefix
from fhir_server.store.mongodb.documents import ARRAYS, FIRST_PATIENT, document_id
from fhir_server.store.row_order import patient_number

Query = dict[str, Any]
TRUE: Final[Query] = {}
FALSE: Final[Query] = {"$alwaysFalse": 1}
_MAX_ALTERNATIVES: Final = 1  # conditions with alternatives that the planner may begin a search with


def both(*parts: Query) -> Query:
    """Return the query for documents that meet all of these."""
    remaining = [part for part in parts if part != TRUE]
    if FALSE in remaining:
        return FALSE
    if len(remaining) < 2:
        return remaining[0] if remaining else TRUE
    return {"$and": [inner for part in remaining for inner in (part["$and"] if part.keys() == {"$and"} else (part,))]}


def either(*parts: Query) -> Query:
    """Return the query for documents that meet any of these."""
    if TRUE in parts:
        return TRUE
    remaining = [part for part in parts if part != FALSE]
    if len(remaining) < 2:
        return remaining[0] if remaining else FALSE
    return {"$or": remaining}


def negated(part: Query) -> Query:
    """Return the query for documents that do not meet this one."""
    if part == TRUE:
        return FALSE
    return TRUE if part == FALSE else {"$nor": [part]}


def among(member: str, values: Iterable[Any]) -> Query:
    """Return the query for documents whose member is one of these (or, if it is an array, contains one of these)."""
    listed = sorted(values)
    if not listed:
        return FALSE
    return {member: listed[0]} if len(listed) == 1 else {member: {"$in": listed}}


@dataclass(frozen=True, slots=True)
class AccessPath:
    """A query for rows that one clause admits and that meet the condition.  With ``numbers``, all have their ``n`` among them."""

    query: Query
    numbers: tuple[int, ...] | None = None


def access_paths(type: str, where: Filter, visibility: Visibility) -> tuple[AccessPath, ...]:
    """Return the paths whose union is the result.  Paths that yield nothing are left out."""
    return tuple([path for clause in conditions.effective_clauses(visibility) for path in _of_clause(type, where, clause, visibility.now)])


def found_through(type: str, where: Filter, visibility: Visibility, clause: VisibilityClause) -> Query:
    """Return the query for rows that this clause admits and that meet ``where`` by the entries of any clause that admits them."""
    own = _of_clause(type, where, clause, visibility.now)
    others = [other for other in conditions.effective_clauses(visibility) if other != clause]
    both_admit = [path for other in others for path in _of_both(type, where, clause, other, visibility.now)]
    return either(*[path.query for path in (*own, *both_admit)])


def disjoint_counts(type: str, where: Filter, visibility: Visibility) -> tuple[Query, ...]:
    """Return queries that no row meets twice and that together find the result.

    For a clause of named patients these are the rows of which one is the first patient, and the others.  The first query has no
    condition on an array, so that without further conditions an index alone answers it.
    """
    effective = conditions.effective_clauses(visibility)
    if len(effective) != 1 or (patients := effective[0].patients) is None:
        found = either(*[path.query for path in access_paths(type, where, visibility)])
        return () if found == FALSE else (found,)
    (clause,) = effective
    wanted = _with_few_starts(both(covers(type, replace(clause, patients=None), visibility.now), condition(type, where, clause.classes)))
    numbers = sorted({patient_number(patient) for patient in patients})
    first = both(wanted, among("n", numbers), among(FIRST_PATIENT, patients))
    others = both(wanted, among("others", patients), {FIRST_PATIENT: {"$nin": sorted(patients)}})
    return tuple([query for query in (first, others) if query != FALSE])


def _of_clause(type: str, where: Filter, clause: VisibilityClause, now: int) -> tuple[AccessPath, ...]:
    wanted = both(covers(type, clause, now), condition(type, where, clause.classes))
    return _paths(wanted, owners(where, clause))


def owners(where: Filter, clause: VisibilityClause) -> frozenset[str] | None:
    """Return few patients, to one of whom each row belongs that meets ``where`` and that the clause admits; None: to any."""
    return conditions.narrowest_patients(conditions.needed_conditions(where, clause), clause)[1]


def _of_both(type: str, where: Filter, clause: VisibilityClause, other: VisibilityClause, now: int) -> tuple[AccessPath, ...]:
    """Return paths to rows that both clauses admit and that meet ``where`` by the entries of the other one."""
    wanted = both(covers(type, clause, now), covers(type, other, now), condition(type, where, other.classes))
    if clause.patients is not None and other.patients is not None and clause.patients.isdisjoint(other.patients):
        # such a row belongs to two patients, one of whom is not its first
        wanted = both(_with_few_starts(wanted), among("others", clause.patients | other.patients))
        return () if wanted == FALSE else (AccessPath(wanted),)
    return _paths(wanted, min([*_patients(clause), *_patients(other)], key=len, default=None))


def _patients(clause: VisibilityClause) -> tuple[frozenset[str], ...]:
    return () if clause.patients is None else (clause.patients,)


def _with_few_starts(wanted: Query) -> Query:
    """Return the same query, in which the planner takes only the first alternatives as ways to begin the search.

    It would try each combination of one branch of every ``$or`` that must hold, and their number grows exponentially.  It
    does not look into ``$nor``.
    """
    parts = wanted.get("$and", ())
    alternatives = [part for part in parts if part.keys() == {"$or"}][_MAX_ALTERNATIVES:]
    if not alternatives:
        return wanted
    return {"$and": [{"$nor": [{"$nor": part["$or"]}]} if part in alternatives else part for part in parts]}


def _paths(wanted: Query, patients: frozenset[str] | None) -> tuple[AccessPath, ...]:
    """Return a path to rows whose first patient is one of these, and one to rows of which one of these is another patient."""
    wanted = _with_few_starts(wanted)
    if wanted == FALSE or (patients is not None and not patients):
        return ()
    if patients is None:
        return (AccessPath(wanted),)
    numbers = tuple(sorted({patient_number(patient) for patient in patients}))
    return AccessPath(both(wanted, among("n", numbers)), numbers), AccessPath(both(wanted, among("others", patients)))


def covers(type: str, clause: VisibilityClause, now: int) -> Query:
    """Return the query for rows that the clause admits."""
    owned = TRUE if clause.patients is None else among("patients", clause.patients)
    released = {"release": {"$lte": now}} if clause.released_only else TRUE
    return both({"type": type}, owned, among("class", clause.classes), released, condition(type, clause.where, clause.classes))


def condition(type: str, filter: Filter, classes: frozenset[int]) -> Query:
    """Return the query for rows that meet ``filter``, judged by entries of these classes alone.  Raises TypeError for an unknown node."""
    match filter:
        case Has(param, NearTo() as near):
            return _near(param, near, classes)
        case Has(param, predicate):
            return _entry(param, *_predicate_condition(predicate), classes)
        case Present(param, kind):
            return _entry(param, ARRAYS[kind][0], TRUE, classes)
        case IdIs(ids):
            return among("_id", [document_id(type, id) for id in ids])
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
    """Yield the queries of the parts; codes of one parameter and system as one, because a value set may have a thousand codes."""
    codes: dict[tuple[str, str | None], list[str]] = {}
    for part in parts:
        if isinstance(part, Has) and isinstance(part.predicate, TokenIs) and part.predicate.code is not None:
            codes.setdefault((part.param, part.predicate.system), []).append(part.predicate.code)
        else:
            yield condition(type, part, classes)
    for (param, system), several in codes.items():
        yield _entry(param, "tok", {**among("v", set(several)), **_system(system)}, classes)


def _entry(param: str, array: str, predicate: Query, classes: frozenset[int]) -> Query:
    if predicate == FALSE or not classes:
        return FALSE
    return {array: {"$elemMatch": {"p": param, **predicate, **among("c", classes)}}}


def _near(param: str, near: NearTo, classes: frozenset[int]) -> Query:
    """Return the query for documents with such a point: those between its bounds, by the index, of which one is near enough."""
    low, high = near.bounds
    bounds = {"$gte": float(low), "$lte": float(high)}
    within = _entry(param, "geo", {"z": bounds}, classes)
    x, y, z = [{"$subtract": [f"$$e.{axis}", float(at)]} for axis, at in (("x", near.x), ("y", near.y), ("z", near.z))]
    squares = [{"$multiply": [one, one]} for one in (x, y, z)]
    # $add of more than two numbers rounds once; two at a time, as the meaning does.
    apart = {"$add": [{"$add": squares[:2]}, squares[2]]}
    tests = [
        {"$eq": ["$$e.p", param]}, {"$in": ["$$e.c", sorted(classes)]}, {"$gte": ["$$e.z", bounds["$gte"]]},
        {"$lte": ["$$e.z", bounds["$lte"]]}, {"$lte": [apart, float(near.square)]},
    ]  # fmt: skip
    points = {"$map": {"input": {"$ifNull": ["$geo", []]}, "as": "e", "in": {"$and": tests}}}
    return both(within, {"$expr": {"$anyElementTrue": [points]}})


def _predicate_condition(predicate: Any) -> tuple[str, Query]:
    kind = KIND.get(predicate.__class__)
    if kind is None:
        raise TypeError(f"not a predicate: {predicate!r}")
    return ARRAYS[kind][0], _PREDICATES[kind](predicate)


def _token(predicate: TokenIs) -> Query:
    return {**({} if predicate.code is None else {"v": predicate.code}), **_system(predicate.system)}


def _system(system: str | None) -> Query:
    return {} if system is None else {"s": system}


def _under(predicate: UnderUrl) -> Query:
    below = [{"v": {"$gte": predicate.url + end, "$lt": after_prefix(predicate.url + end)}} for end in URL_ENDS]
    return {"$or": [{"v": predicate.url}, *below]}


def _text(predicate: TextIs) -> Query:
    return _TEXT[predicate.mode](predicate.value)


def _prefix(value: str) -> Query:
    end = after_prefix(value)
    return {"v": {"$gte": value}} if end is None else {"v": {"$gte": value, "$lt": end}}


def _contains(value: str) -> Query:
    return {"v": {"$regex": _SPECIAL.sub(_escape, value)}} if value else {}


def _escape(match: re.Match[str]) -> str:
    return r"\x00" if match[0] == "\0" else "\\" + match[0]


_SPECIAL: Final = re.compile(r"[\x00-\x08\x0e-\x1f!-/:-@\[-`{-\x7f]")


_TEXT: Final[dict[str, Callable[[str], Query]]] = {
    "prefix": _prefix,
    "exact": lambda value: {"e": value},
    "equal": lambda value: {"v": value},
    "contains": _contains,
}

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
    """Return the condition that the number is in [lo, hi), or equals lo if that is empty."""
    return {"$eq": lo} if lo == hi else {"$gte": lo, "$lt": hi}


def _number(predicate: QuantityIs) -> Query:
    return _NUMBER[predicate.prefix](float(predicate.lo), float(predicate.hi), float(predicate.value))


def _numbers(predicate: NumbersAre) -> Query:
    return {"z": _number(predicate.first)["v"], "x": _number(predicate.second)["v"]}


def _quantity(predicate: QuantityIs) -> Query:
    number = _number(predicate)
    if predicate.system is not None:
        return {**number, "s": predicate.system, **({} if predicate.unit is None else {"k": predicate.unit})}
    return number if predicate.unit is None else {**number, "$or": [{"k": predicate.unit}, {"u": predicate.unit}]}


_PREDICATES: Final[dict[str, Callable[[Any], Query]]] = {
    "token": _token,
    "reference": lambda predicate: _under(predicate) if isinstance(predicate, UnderUrl) else among("v", predicate.targets),
    "string": _text,
    "words": lambda predicate: _contains(f" {predicate.word} "),
    "date": lambda predicate: _DATE[predicate.prefix](predicate.lo, predicate.hi),
    "quantity": _quantity,
    "position": _numbers,
}
