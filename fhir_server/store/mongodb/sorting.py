"""Rows in the order of sort keys: aggregations that give each row its values, then sort, then stop.

A row's value is the least (or greatest) of its entries of the classes that the windows showing it admit.  With one
window that is a filter over the row's array.  With several, each window's rows are given that window's values, and
what several windows say of one row is put together again by its ``_id``.
"""

from __future__ import annotations

from typing import Any, Final

from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store.mongodb.documents import ARRAYS
from fhir_server.store.mongodb.translate import FALSE, Query, clauses, through

Pipeline = list[dict[str, Any]]
Place = tuple[int, str]

_MEMBER: Final = {"token": "v", "reference": "v", "string": "v", "quantity": "v"}
ORDER: Final[dict[str, Any]] = {"n": 1, "at": 1}
_BOUNDED: Final[dict[str, Any]] = {"at": 1}


def order(visibility: Visibility) -> dict[str, Any]:
    """What this sight's answers are ordered by, as far as they are not sorted (:mod:`~fhir_server.store.row_order`)."""
    return _BOUNDED if visibility.limited_to_patients else ORDER


def sorted_ids(
    type: str,
    where: Filter,
    visibility: Visibility,
    sort: tuple[SortKey, ...],
    limit: int,
    after: Position | None,
    place: Place,
    collection: str,
) -> Pipeline:
    """Documents ``{_id, k0, k1, ...}`` of the rows found, in order, where there can be any.

    ``after`` leaves those behind it, whose row stands at ``place``.
    """
    several = clauses(visibility)
    if len(several) == 1:
        pipeline: Pipeline = [{"$match": through(type, where, visibility, several[0])}, {"$project": _values(sort, several[0].classes)}]
    else:
        pipeline = _together(type, where, visibility, sort, collection)
    ranks = {f"m{n}": {"$eq": [f"$k{n}", None]} for n in range(len(sort))}  # rows without a value come last, either way up
    pipeline.append({"$set": ranks})
    if after is not None:
        pipeline.append({"$match": _behind(sort, after, beyond(place, visibility))})
    sorting: dict[str, Any] = {}
    for n, key in enumerate(sort):
        sorting |= {f"m{n}": 1, f"k{n}": -1 if key.descending else 1}
    return [*pipeline, {"$sort": sorting | order(visibility)}, {"$limit": limit}, {"$project": {f"k{n}": 1 for n in range(len(sort))}}]


def _values(sort: tuple[SortKey, ...], classes: frozenset[int]) -> dict[str, Any]:
    return {"n": 1, "at": 1, **{f"k{n}": _value(key, classes) for n, key in enumerate(sort)}}


def _value(key: SortKey, classes: frozenset[int]) -> Any:
    if key.param == "_id":
        return "$id"
    member = ("hi" if key.descending else "lo") if key.kind == "date" else "v"
    admitted = {"$and": [{"$eq": ["$$e.p", {"$literal": key.param}]}, {"$in": ["$$e.c", sorted(classes)]}]}
    entries = {"$filter": {"input": {"$ifNull": ["$" + ARRAYS[key.kind][0], []]}, "as": "e", "cond": admitted}}
    values = {"$map": {"input": entries, "as": "e", "in": f"$$e.{member}"}}
    return {"$ifNull": [{"$max" if key.descending else "$min": values}, None]}


def _together(type: str, where: Filter, visibility: Visibility, sort: tuple[SortKey, ...], collection: str) -> Pipeline:
    """Each window's answers with its values; a row that several show is one row with the best of them."""
    parts: list[Pipeline] = []
    for clause in clauses(visibility):
        shown = through(type, where, visibility, clause)
        if shown != FALSE:
            parts.append([{"$match": shown}, {"$project": _values(sort, clause.classes)}])
    unions = [{"$unionWith": {"coll": collection, "pipeline": part}} for part in parts[1:]]
    best = {f"k{n}": {"$max" if key.descending else "$min": f"$k{n}"} for n, key in enumerate(sort)}
    return [*parts[0], *unions, {"$group": {"_id": "$_id", "n": {"$first": "$n"}, "at": {"$first": "$at"}, **best}}]


def _behind(sort: tuple[SortKey, ...], after: Position, later: tuple[Query, ...]) -> Query:
    """Strictly behind the keys, or with equal keys ``later``."""
    ways: list[Query] = []
    equal: Query = {}
    for n, (key, value) in enumerate(zip(sort, after.keys, strict=True)):
        if value is None:
            equal = {**equal, f"m{n}": True}
            continue
        ways += [{**equal, f"m{n}": True}, {**equal, f"k{n}": {"$lt" if key.descending else "$gt": value}, f"m{n}": False}]
        equal = {**equal, f"k{n}": value, f"m{n}": False}
    ways += [{**equal, **way} for way in later]
    return {"$or": ways}


def beyond(place: Place, visibility: Visibility) -> tuple[Query, ...]:
    """The ways to stand behind this place."""
    number, at = place
    if visibility.limited_to_patients:
        return ({"at": {"$gt": at}},)
    return {"n": {"$gt": number}}, {"n": number, "at": {"$gt": at}}
