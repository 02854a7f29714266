"""Finds rows in the order of sort keys: aggregations that compute the sort values of each row, sort, and limit.

A row's sort value is the least (or greatest) of its entries that a clause which covers the row admits.  With one clause
that is a filter over the row's array.  With several, each clause's rows get the values of that clause, and the results for
one row are merged by its ``_id``: by the server or, in a transaction, where MongoDB has no ``$unionWith``, by :func:`merged`.

The values of a chained key come from ``$lookup``, one for each step and each clause of the step's Visibility.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cmp_to_key
from typing import Any, Final

from fhir_server.search import match
from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position, SortKey, SortStep
from fhir_server.search.visibility import Visibility
from fhir_server.store import Page, conditions
from fhir_server.store.mongodb.documents import ARRAYS, Document, decode_row, plain
from fhir_server.store.mongodb.translate import FALSE, AccessPath, Query, covers, found_through

Pipeline = list[dict[str, Any]]
Place = tuple[int, str]

ORDER: Final[dict[str, Any]] = {"n": 1, "at": 1}
_STORED_ORDER: Final[dict[str, Any]] = {"at": 1}


def row_order_keys(visibility: Visibility) -> dict[str, Any]:
    """Return the sort of unsorted answers, and of equal sort values, for this visibility (:mod:`~fhir_server.store.row_order`)."""
    return _STORED_ORDER if visibility.limited_to_patients else ORDER


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
    """Return the pipeline that yields ``{_id, k0, k1, ...}`` of the rows found, in order.  At least one clause must admit rows.

    With ``after``, only rows after this position are found; ``place`` is the place of its row.
    """
    effective = conditions.effective_clauses(visibility)
    if len(effective) == 1:
        pipeline: Pipeline = [
            {"$match": found_through(type, where, visibility, effective[0])},
            *_values(sort, effective[0].classes, collection),
        ]
    else:
        pipeline = _merge_clauses(type, where, visibility, sort, collection)
    return [*pipeline, *in_order(sort, visibility, limit, after, place), {"$project": {f"k{n}": 1 for n in range(len(sort))}}]


def in_order(sort: tuple[SortKey, ...], visibility: Visibility, limit: int, after: Position | None, place: Place) -> Pipeline:
    """Return the stages that sort documents with :func:`sort_value` and :data:`ORDER`, and leave the first ones after the position."""
    ranks = {f"m{n}": {"$eq": [f"$k{n}", None]} for n in range(len(sort))}  # rows without a value come last, ascending or descending
    later = [] if after is None else [{"$match": _after_position(sort, after, after_place(place, visibility))}]
    sorting: dict[str, Any] = {}
    for n, key in enumerate(sort):
        sorting |= {f"m{n}": 1, f"k{n}": -1 if key.descending else 1}
    return [{"$set": ranks}, *later, {"$sort": sorting | row_order_keys(visibility)}, {"$limit": limit}]


def _values(sort: tuple[SortKey, ...], classes: frozenset[int], collection: str) -> Pipeline:
    """Return the stages that leave ``{_id, n, at, k0, k1, ...}`` of each row, by entries of these classes."""
    plain = {"n": 1, "at": 1, **{f"k{n}": sort_value(key, classes) for n, key in enumerate(sort) if not key.steps}}
    chained = [_chained_value(f"k{n}", key, classes, collection) for n, key in enumerate(sort) if key.steps]
    if not chained:
        return [{"$project": plain}]
    found = {"n": 1, "at": 1, **{f"k{n}": 1 for n in range(len(sort))}}
    return [{"$project": {**plain, "ref": 1}}, *[stage for stages in chained for stage in stages], {"$project": found}]


def sort_value(key: SortKey, classes: frozenset[int]) -> Any:
    """Return the expression for a row's sort value: the best of its entries of these classes, or null."""
    if key.param == "_id":
        return "$id"
    member = ("hi" if key.by_greatest else "lo") if key.kind == "date" else "v"
    return _best(key, _admitted(ARRAYS[key.kind][0], key.param, classes, member))


def _best(key: SortKey, values: Any) -> Any:
    return {"$ifNull": [{"$max" if key.by_greatest else "$min": values}, None]}


def _admitted(array: str, param: str, classes: frozenset[int], member: str) -> Any:
    """Return the values of the entries of a parameter that have one of these classes."""
    admitted = {"$and": [{"$eq": ["$$e.p", {"$literal": param}]}, {"$in": ["$$e.c", sorted(classes)]}]}
    entries = {"$filter": {"input": {"$ifNull": ["$" + array, []]}, "as": "e", "cond": admitted}}
    return {"$map": {"input": entries, "as": "e", "in": f"$$e.{member}"}}


def _chained_value(name: str, key: SortKey, classes: frozenset[int], collection: str) -> Pipeline:
    """Return the stages that set ``name`` to the least or greatest of the values to which the steps of a key lead."""
    stages: Pipeline = []
    found: list[str] = []
    for step in key.steps:
        named = f"{name}_{len(found)}"
        stages.append({"$set": {named: _admitted("ref", step.param, classes, "v")}})
        for pipeline in _through(step, collection):
            into = f"{name}_{len(found)}_"
            stages.append({"$lookup": {"from": collection, "localField": named, "foreignField": "_id", "pipeline": pipeline, "as": into}})
            found.append(f"${into}.v")
    values = {"$concatArrays": found} if found else []
    return [*stages, {"$set": {name: _best(key, values)}}]


def _through(step: SortStep, collection: str) -> list[Pipeline]:
    """Return for each clause of a step's Visibility the pipeline on the rows named that yields ``{v}``, their values."""
    sight = step.visibility or Visibility()
    pipelines: list[Pipeline] = []
    for clause in conditions.effective_clauses(sight):
        admitted = covers(step.type, clause, sight.now)
        if admitted != FALSE:
            values = _values((step.key,), clause.classes, collection)
            pipelines.append([{"$match": admitted}, *values, {"$project": {"_id": 0, "v": "$k0"}}])
    return pipelines


def clause_values(type: str, where: Filter, visibility: Visibility, sort: tuple[SortKey, ...], collection: str) -> list[Pipeline]:
    """Return for each clause that finds rows the pipeline that yields ``{_id, n, at, k0, k1, ...}`` of them, in no order."""
    parts: list[Pipeline] = []
    for clause in conditions.effective_clauses(visibility):
        found = found_through(type, where, visibility, clause)
        if found != FALSE:
            parts.append([{"$match": found}, *_values(sort, clause.classes, collection)])
    return parts


def _merge_clauses(type: str, where: Filter, visibility: Visibility, sort: tuple[SortKey, ...], collection: str) -> Pipeline:
    """Return the pipeline for each clause's rows with its sort values; of a row of several clauses, the best values."""
    parts = clause_values(type, where, visibility, sort, collection)
    unions = [{"$unionWith": {"coll": collection, "pipeline": part}} for part in parts[1:]]
    best = {f"k{n}": {"$max" if key.by_greatest else "$min": f"$k{n}"} for n, key in enumerate(sort)}
    return [*parts[0], *unions, {"$group": {"_id": "$_id", "n": {"$first": "$n"}, "at": {"$first": "$at"}, **best}}]


def merged(
    found: Iterable[Document], visibility: Visibility, sort: tuple[SortKey, ...], limit: int, after: Position | None, place: Place
) -> list[Document]:
    """Return what :func:`sorted_ids` finds, from the results of :func:`clause_values`."""
    compare = match.comparison(sort)
    rows: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {}
    for document in found:
        values = tuple([plain(document[f"k{n}"]) for n in range(len(sort))])
        if document["_id"] in rows:
            values = tuple(map(_better, sort, values, rows[document["_id"]][0]))
        rows[document["_id"]] = values, _place(visibility, (document["n"], document["at"]))
    end = None if after is None else (after.keys, _place(visibility, place))
    listed = [(id, item) for id, item in rows.items() if end is None or compare(item, end) > 0]
    listed.sort(key=lambda row: cmp_to_key(compare)(row[1]))
    return [{"_id": id, **{f"k{n}": value for n, value in enumerate(values)}} for id, (values, _) in listed[:limit]]


def sorted_page(narrow: list[Document], found: list[Document], limit: int, keys: int) -> Page:
    """Return the page of at most ``limit`` rows in the order of ``narrow``, which has their sort values; ``found``: their documents."""
    documents = {document["_id"]: document for document in found}
    rows = tuple([decode_row(documents[values["_id"]]) for values in narrow[:limit]])
    last = tuple([plain(narrow[limit - 1][f"k{n}"]) for n in range(keys)]) if len(narrow) > limit else ()
    return Page(rows, Position(last, rows[-1].id) if len(narrow) > limit else None)


def _better(key: SortKey, one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other) if key.by_greatest else min(one, other)


def _place(visibility: Visibility, place: tuple[Any, ...]) -> tuple[Any, ...]:
    return place[1:] if visibility.limited_to_patients else place


def _after_position(sort: tuple[SortKey, ...], after: Position, later: tuple[Query, ...]) -> Query:
    """Return the condition that a row comes after the keys, or has equal keys and meets one of ``later``."""
    alternatives: list[Query] = []
    equal: Query = {}
    for n, (key, value) in enumerate(zip(sort, after.keys, strict=True)):
        if value is None:
            equal = {**equal, f"m{n}": True}
            continue
        alternatives += [{**equal, f"m{n}": True}, {**equal, f"k{n}": {"$lt" if key.descending else "$gt": value}, f"m{n}": False}]
        equal = {**equal, f"k{n}": value, f"m{n}": False}
    alternatives += [{**equal, **condition} for condition in later]
    return {"$or": alternatives}


def after_place(place: Place, visibility: Visibility) -> tuple[Query, ...]:
    """Return conditions, one of which a row after this place meets."""
    number, at = place
    if visibility.limited_to_patients:
        return ({"at": {"$gt": at}},)
    return {"n": {"$gt": number}}, {"n": number, "at": {"$gt": at}}


def rows_after(path: AccessPath, place: Place, visibility: Visibility) -> Iterable[Query]:
    """Return queries for the rows of this path after this place.  Each reads one contiguous part of an index."""
    if place[0] < 0:
        return (path.query,)
    if path.numbers is None or visibility.limited_to_patients:
        return tuple([{"$and": [path.query, later]} for later in after_place(place, visibility)])
    queries: list[Query] = []
    later_numbers = [number for number in path.numbers if number > place[0]]
    if later_numbers:
        queries.append({"$and": [path.query, {"n": {"$in": later_numbers}}]})
    if place[0] in path.numbers:
        queries.append({"$and": [path.query, {"n": place[0], "at": {"$gt": place[1]}}]})
    return queries
