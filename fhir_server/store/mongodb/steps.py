"""Looks up what the steps of a condition (chained parameters and ``_has``) lead to, in MongoDB (:mod:`fhir_server.store.chains`).

A search cannot join other documents and still read an index in the order of rows, so steps are looked up first, in the same snapshot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from fhir_server.search.filters import AllOf, Filter, Present, ReferredBy, Step
from fhir_server.search.limits import MAX_STEP_ROWS, too_many_step_rows
from fhir_server.search.visibility import Visibility
from fhir_server.store import conditions
from fhir_server.store.conditions import after_prefix
from fhir_server.store.mongodb.documents import Document
from fhir_server.store.mongodb.translate import access_paths, either


@dataclass(frozen=True, slots=True)
class MongoSteps:
    """See :class:`fhir_server.store.chains.StepReader`.  ``aggregate`` runs a pipeline on the current rows."""

    aggregate: Callable[[list[dict[str, Any]]], Awaitable[list[Document]]]

    async def matching_ids(self, type: str, where: Filter, visibility: Visibility) -> Collection[str] | None:
        paths = access_paths(type, where, visibility)
        if not paths:
            return ()
        matched = {"$match": either(*[path.query for path in paths])}
        found = await self.aggregate([matched, {"$limit": MAX_STEP_ROWS + 1}, {"$project": {"_id": 0, "id": 1}}])
        return None if len(found) > MAX_STEP_ROWS else [document["id"] for document in found]

    async def referred_targets(self, step: ReferredBy, visibility: Visibility, prefix: str) -> Collection[str] | None:
        where = AllOf((step.where, Present(step.param, "reference")))
        found: set[str] = set()
        for clause in conditions.effective_clauses(visibility):
            paths = access_paths(step.type, where, Visibility((clause,), visibility.now))
            if paths:
                named = {"$gte": prefix, "$lt": after_prefix(prefix)}
                stages: list[dict[str, Any]] = [
                    {"$match": either(*[path.query for path in paths])},
                    {"$project": {"ref": 1}},
                    {"$unwind": "$ref"},
                    {"$match": {"ref.p": step.param, "ref.c": {"$in": sorted(clause.classes)}, "ref.v": named}},
                    {"$group": {"_id": "$ref.v"}},
                    {"$limit": MAX_STEP_ROWS + 1},
                ]
                found.update([group["_id"] for group in await self.aggregate(stages)])
        return None if len(found) > MAX_STEP_ROWS else found

    def unresolved(self, step: Step) -> Filter:
        raise too_many_step_rows(step.type, MAX_STEP_ROWS)
