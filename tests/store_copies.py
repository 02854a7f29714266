"""Copies of stores that take long to fill: what a closed store holds, and new stores with the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from tests.served import make_store


def copy_of(url: str) -> Callable[[str], None]:
    """Return what makes a new store, whose URL it is given, with what the closed store ``url`` holds.  Both are of one kind."""
    return _file(url) if url.startswith("sqlite") else _database(url)


def _file(url: str) -> Callable[[str], None]:
    path = _path(url)
    beside = [one for one in path.parent.glob(f"{path.name}-*") if one.stat().st_size]
    assert not beside, f"The store is not closed: {beside}"
    held = path.read_bytes()

    def fill(url: str) -> None:
        path = _path(url)
        assert not path.exists(), "What is in the store already would be lost."
        path.write_bytes(held)

    return fill


def _path(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def _database(url: str) -> Callable[[str], None]:
    with MongoClient[RawBSONDocument](url, document_class=RawBSONDocument) as client:
        database = client.get_default_database()
        held = {name: list(database[name].find()) for name in database.list_collection_names()}

    def fill(url: str) -> None:
        make_store(url)
        with MongoClient[RawBSONDocument](url, document_class=RawBSONDocument) as client:
            database = client.get_default_database()
            for name, documents in held.items():
                database[name].delete_many({})
                if documents:
                    database[name].insert_many(documents)

    return fill
