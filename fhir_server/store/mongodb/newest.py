"""The newest rows of a patient, at the cost of a page: the index of dates is read in its own order.

The index ``newest_of_patient`` has one range for each (record, search parameter, class), with the latest dates first.  A first
query reads the beginning of each range that the caller sees, and yields the date of the page's last row.  A second one finds and
sorts all rows from this date on.  So the first query only limits the work: whatever order MongoDB reads in, the page is right.
If the first query does not fill a page, because few rows have a date or meet the condition, all rows are sorted as usual.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.search.filters import Filter, Has, OfPatient, RefersTo
from fhir_server.search.rows import Position, SortKey
from fhir_server.search.visibility import Visibility
from fhir_server.store import conditions
from fhir_server.store.mongodb import documents as docs
from fhir_server.store.mongodb.documents import Document
from fhir_server.store.mongodb.sorting import ORDER, Pipeline, Place, in_order, sort_value
from fhir_server.store.mongodb.translate import FALSE, TRUE, Query, access_paths, among, both, condition, either, owners
from fhir_server.store.row_order import patient_number

_MAX_PATIENTS: Final = 8
_TRIED: Final = 250  # newest visible rows of a class that are compared with the condition of the search


@dataclass(frozen=True, slots=True)
class NewestQuery:
    """A search among the rows of ``patients`` that sorts by one date, the newest first.

    All clauses have these ``classes`` and the same ``released_only``, so that rows that the caller does not see take no place
    among the newest ones.
    """

    type: str
    where: Filter
    visibility: Visibility
    sort: tuple[SortKey, ...]
    limit: int
    after: Position | None
    place: Place
    patients: frozenset[str]
    classes: frozenset[int]
    released_only: bool

    async def documents(self, aggregate: Callable[[Pipeline], Awaitable[list[Document]]], collection: str) -> list[Document] | None:
        """Return the documents of a full page in order, each with its sort value ``k0``; None if there may be a shorter way to it."""
        found = await aggregate(self.last_date(collection))
        if not found or found[0]["rows"] < self.limit:
            return None
        page = await aggregate(self.page(found[0]["k0"]))
        return page if len(page) == self.limit else None

    def last_date(self, collection: str) -> Pipeline:
        """Return the pipeline that yields ``{rows, k0}``: how many rows it found, at most ``limit``, and the earliest of their dates."""
        first, *others = [self._newest_of(patient, collection) for patient in sorted(self.patients)]
        unions = [{"$unionWith": {"coll": collection, "pipeline": other}} for other in others]
        earliest = {"$group": {"_id": None, "rows": {"$sum": 1}, "k0": {"$min": "$k0"}}}
        return [*first, *unions, {"$sort": {"k0": -1}}, {"$limit": self.limit}, earliest]

    def _newest_of(self, patient: str, collection: str) -> Pipeline:
        """Return the pipeline that yields ``{k0}`` of the newest rows of each class that the patient's rows have."""
        of_type = {"n": patient_number(patient), "type": self.type, **among("class", self.classes)}
        dated: Query = {"record": docs.record_name(patient, self.type), **self._has_date({} if self._end is None else {"$lt": self._end})}
        if self.released_only:
            dated["release"] = {"$lte": self.visibility.now}
        wanted = either(*[path.query for path in access_paths(self.type, self.where, self.visibility)])
        before_end = [] if self._end is None else [{"$match": {"k0": {"$lt": self._end}}}]
        # The first stage names no member that another index begins with, so MongoDB can only read the index in whose order rows come.
        newest = [
            {"$match": both(dated, self._seen)}, {"$limit": _TRIED if self._is_selective else self.limit}, {"$match": wanted},
            {"$project": {"_id": 0, "k0": sort_value(self.sort[0], self.classes)}}, *before_end, {"$limit": self.limit},
        ]  # fmt: skip
        of_class = {"from": collection, "localField": "_id", "foreignField": "class", "pipeline": newest, "as": "rows"}
        return [
            {"$match": of_type}, {"$group": {"_id": "$class"}}, {"$lookup": of_class}, {"$unwind": "$rows"},
            {"$project": {"_id": 0, "k0": "$rows.k0"}},
        ]  # fmt: skip

    def page(self, earliest: int) -> Pipeline:
        """Return the pipeline that yields the documents of at most ``limit`` rows in order, from those not before this date."""
        dated = self._has_date({"$gte": earliest} if self._end is None else {"$gte": earliest, "$lte": self._end})
        of_records = among("record", [docs.record_name(patient, self.type) for patient in self.patients])
        paths = [
            both(path.query, dated, {} if path.numbers is None else of_records)
            for path in access_paths(self.type, self.where, self.visibility)
        ]
        values = docs.ROW | ORDER | {"k0": sort_value(self.sort[0], self.classes)}
        return [{"$match": either(*paths)}, {"$project": values}, *in_order(self.sort, self.visibility, self.limit, self.after, self.place)]

    @property
    def _seen(self) -> Query:
        """The query for rows that the conditions of a clause admit, in a form in which they are no way to begin the search.

        Rows that they do not admit do not count as tried: what is hidden must not decide whether all rows are sorted.
        """
        seen = either(*[condition(self.type, clause.where, self.classes) for clause in conditions.effective_clauses(self.visibility)])
        return seen if seen == TRUE else {"$nor": [{"$nor": [seen, FALSE]}]}

    @property
    def _is_selective(self) -> bool:
        """Whether the search has a condition that not nearly all visible rows of the patients meet."""
        own = RefersTo(frozenset(f"Patient/{patient}" for patient in self.patients))
        parts = conditions.conjuncts(self.where)
        return not all(isinstance(part, OfPatient) or (isinstance(part, Has) and part.predicate == own) for part in parts)

    @property
    def _end(self) -> Any:
        """The date that the page begins after or at; None for the first page."""
        return None if self.after is None else self.after.keys[0]

    def _has_date(self, range: Query) -> Query:
        return {"dat": {"$elemMatch": {"p": self.sort[0].param, **({"hi": range} if range else {}), **among("c", self.classes)}}}


def newest_query(
    type: str, where: Filter, visibility: Visibility, sort: tuple[SortKey, ...], limit: int, after: Position | None, place: Place
) -> NewestQuery | None:
    """Return the query for these rows; None if it is no search for the newest rows of few patients by a date."""
    clauses = conditions.effective_clauses(visibility)
    of_clauses = [owners(where, clause) for clause in clauses]
    key, one_set = sort[0], len({(clause.classes, clause.released_only) for clause in clauses}) == 1
    # all rows of a transaction have the same _lastUpdated, so there is no page to begin with
    is_newest_first = len(sort) == 1 and key.kind == "date" and key.descending and not key.steps and key.param != "_lastUpdated"
    if not is_newest_first or not one_set or (after is not None and after.keys[0] is None):
        return None
    patients = frozenset[str]().union(*[few for few in of_clauses if few is not None])
    if None in of_clauses or not 0 < len(patients) <= _MAX_PATIENTS:
        return None
    return NewestQuery(type, where, visibility, sort, limit, after, place, patients, clauses[0].classes, clauses[0].released_only)
