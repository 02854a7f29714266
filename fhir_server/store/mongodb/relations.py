"""Which rows of the MongoDB store refer to which, for relabeling."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fhir_server.store import Row
from fhir_server.store.mongodb import documents as docs
from fhir_server.store.mongodb.reader import MongoSnapshot
from fhir_server.store.mongodb.sorting import ORDER


async def referrers(
    snapshot: MongoSnapshot, target: str, params: frozenset[str] | None, limit: int | None
) -> tuple[dict[str, Row], set[str]]:
    """Return the rows by name whose current version refers to the target, and the names of those of which a past one does."""
    found: dict[str, Row] = {}
    past: set[str] = set()
    for type, elements in reference_conditions(target, params).items():
        among = {**({} if type is None else {"type": type}), "ref": {"$elemMatch": elements}}
        current = await snapshot.current_documents(among, docs.ROW, sort=ORDER, limit=limit or 0)
        found |= {document["_id"]: docs.decode_row(document) for document in current}
        past |= {document["rid"] for document in await snapshot.past_documents(among, {"rid": 1, "_id": 0})}
    return found, past


async def referrer_names(snapshot: MongoSnapshot, targets: Collection[str], after: str, limit: int | None) -> dict[str, tuple[str, ...]]:
    """See :meth:`fhir_server.store.Transaction.referrer_names_unfiltered`."""
    refers = {"ref": {"$elemMatch": {"v": {"$in": sorted(targets)}}}}
    later = {**refers, "_id": {"$gt": after}}
    current = await snapshot.current_documents(later, {"patients": 1}, sort={"_id": 1}, limit=limit or 0)
    found = {str(document["_id"]): tuple(document["patients"]) for document in current}
    past: list[dict[str, Any]] = [
        {"$match": {**refers, "rid": {"$gt": after}}},
        {"$group": {"_id": "$rid", "patients": {"$last": "$patients"}}},
        {"$sort": {"_id": 1}},
        *([{"$limit": limit}] if limit else []),
    ]
    for document in await snapshot.aggregated_history(past):
        found.setdefault(str(document["_id"]), tuple(document["patients"]))
    return {name: found[name] for name in sorted(found)[:limit]}


async def referred_names(snapshot: MongoSnapshot, names: Collection[str], params: frozenset[str]) -> frozenset[str]:
    """See :meth:`fhir_server.store.Transaction.referred_names_unfiltered`."""
    found: set[str] = set()
    for type in sorted({name.partition("/")[0] for name in names}):
        own = sorted(param.partition(".")[2] for param in params if param.startswith(f"{type}."))
        if not own:
            continue
        listed, fields = {"$in": sorted(name for name in names if name.startswith(f"{type}/"))}, {"ref.p": 1, "ref.v": 1}
        documents = await snapshot.current_documents({"_id": listed, "ref.p": {"$in": own}}, fields)
        documents += await snapshot.past_documents({"rid": listed, "ref.p": {"$in": own}}, fields)
        found |= {entry["v"] for document in documents for entry in document["ref"] if entry["p"] in own}
    return frozenset(found)


def reference_conditions(target: str, params: frozenset[str] | None) -> dict[str | None, docs.Document]:
    """Return the conditions on index entries that refer to ``target``, by type (None: any type)."""
    if params is None:
        return {None: {"v": target}}
    by_type: dict[str, list[str]] = {}
    for name in sorted(params):
        type, _, param = name.partition(".")
        by_type.setdefault(type, []).append(param)
    return {type: {"v": target, "p": {"$in": listed}} for type, listed in by_type.items()}
