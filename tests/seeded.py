"""Stores with the seed records that are copied, not loaded: loading them into MongoDB takes as long as hundreds of requests.

A test that changes how resources are stored has to load them (:class:`tests.served.Served`).  If it changes this while it runs and wants
copies of what the right code stored, it makes one first.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from tests.served import NOON, Served, make_store

Kind = tuple[str, str]  # the instant to which the records are shifted, and the settings under which they were stored
_states: dict[Kind, Any] = {}
_files: dict[Kind, bytes] = {}
_collections: dict[Kind, dict[str, list[RawBSONDocument]]] = {}


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


def _kind(at: str, settings: dict[str, Any]) -> Kind:
    return at, repr(sorted(settings.items()))


def _fill_state(store: str, at: str, settings: dict[str, Any]) -> Served:
    kind = _kind(at, settings)
    if kind not in _states:
        _states[kind] = Served(store, at=at, **settings).parts.store.state  # type: ignore[attr-defined]
    served = Served(store, at=at, seeds=False, **settings)
    served.parts.store.state = _states[kind].copy()  # type: ignore[attr-defined]
    return served


def _fill_file(store: str, at: str, settings: dict[str, Any]) -> Served:
    path, kind = Path(store.removeprefix("sqlite:///")), _kind(at, settings)
    assert not path.exists(), "What is in the store already would be lost."
    if kind not in _files:
        Served(store, at=at, **settings).close()
        assert not [one for one in path.parent.glob(f"{path.name}-wal") if one.stat().st_size]
        _files[kind] = path.read_bytes()
    else:
        path.write_bytes(_files[kind])
    return Served(store, at=at, seeds=False, **settings)


def _fill_database(store: str, at: str, settings: dict[str, Any]) -> Served:
    with MongoClient[RawBSONDocument](store, document_class=RawBSONDocument) as client:
        database, kind = client.get_default_database(), _kind(at, settings)
        if kind not in _collections:
            Served(store, at=at, **settings).close()
            _collections[kind] = {name: list(database[name].find()) for name in database.list_collection_names()}
        else:
            make_store(store)
            for name, documents in _collections[kind].items():
                database[name].delete_many({})
                if documents:
                    database[name].insert_many(documents)
    return Served(store, at=at, seeds=False, **settings)
