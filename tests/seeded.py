"""Stores with the seed records that are copied, not loaded: loading them into MongoDB takes as long as hundreds of requests.

For fixtures only: a test that changes how resources are stored has to load them (:class:`tests.served.Served`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from tests.served import NOON, Served, make_store

_states: dict[str, Any] = {}  # by the instant to which the records are shifted, as all of these
_files: dict[str, bytes] = {}
_collections: dict[str, dict[str, list[RawBSONDocument]]] = {}


def seeded(store: str = "memory:", *, at: str = NOON, **settings: Any) -> Served:
    """A server on a new store, with the seed records as the first such server of this process loaded them."""
    fill = {"memory": _fill_state, "sqlite": _fill_file, "mongodb": _fill_database}[store.partition(":")[0]]
    return fill(store, at, settings)


def seeded_with(rows: Iterable[dict[str, Any]]) -> Served:
    """A server in memory with the seed records and these new ones, which a feed stored."""
    server = seeded()
    for row in rows:
        answer = server.request(server.token(), "PUT", f"{row['resourceType']}/{row['id']}", body=row)
        assert answer.status == 201, answer.json
    return server


def _fill_state(store: str, at: str, settings: dict[str, Any]) -> Served:
    if at not in _states:
        _states[at] = Served(store, at=at).parts.store.state  # type: ignore[attr-defined]
    served = Served(store, at=at, seeds=False, **settings)
    served.parts.store.state = _states[at].copy()  # type: ignore[attr-defined]
    return served


def _fill_file(store: str, at: str, settings: dict[str, Any]) -> Served:
    path = Path(store.removeprefix("sqlite:///"))
    if at not in _files:
        Served(store, at=at).close()
        assert not [one for one in path.parent.glob(f"{path.name}-wal") if one.stat().st_size]
        _files[at] = path.read_bytes()
    else:
        path.write_bytes(_files[at])
    return Served(store, at=at, seeds=False, **settings)


def _fill_database(store: str, at: str, settings: dict[str, Any]) -> Served:
    with MongoClient[RawBSONDocument](store, document_class=RawBSONDocument) as client:
        database = client.get_default_database()
        if at not in _collections:
            Served(store, at=at).close()
            _collections[at] = {name: list(database[name].find()) for name in database.list_collection_names()}
        else:
            make_store(store)
            for name, documents in _collections[at].items():
                database[name].delete_many({})
                if documents:
                    database[name].insert_many(documents)
    return Served(store, at=at, seeds=False, **settings)
