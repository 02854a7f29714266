"""Backs up a MongoDB database into one file: all collections as they were at one instant, read in one snapshot session.

The file is gzip.  In it: a line of JSON with the schema; for each collection a line of JSON with its name and then its
documents as BSON, ended by four zero bytes; a line of JSON with the numbers of documents.  Of the locks, only pending log entries
are in it.

MongoDB keeps snapshots for ``minSnapshotHistoryWindowInSeconds`` (default 300): a backup that takes longer is refused.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne
from pymongo.errors import PyMongoError

from fhir_server.store.backup import Progress
from fhir_server.store.mongodb import MongoStore, connect
from fhir_server.store.mongodb.failures import is_transient, operator_error
from fhir_server.store.mongodb.logs import PENDING
from fhir_server.store.mongodb.schema import COPY_STATE, INDEXES, SCHEMA, SCHEMA_NUMBER

_FORMAT: Final = "fhir-server mongodb backup 1"
_COLLECTIONS: Final = tuple(INDEXES)
_PARTS: Final[dict[str, dict[str, Any]]] = {"locks": PENDING}  # of which a part is backed up
_GROWING: Final = frozenset({"counters", "locks"})  # preparing the database adds documents to them
_RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(document_class=RawBSONDocument)
_BATCH: Final = 500
_SOURCE: Final = "backup"  # of a copy that is not complete
_END: Final = bytes(4)


async def write_backup(store: MongoStore, path: Path, progress: Progress) -> dict[str, int]:
    """Write the database to ``path``, and read the file again.  See :mod:`fhir_server.store.backup`."""
    connection = store.connection
    await connection.ensure_ready()
    counts: dict[str, int] = {}
    total = sum([await connection.database[name].estimated_document_count() for name in _COLLECTIONS if name not in _PARTS])
    try:
        primary = await connection.confirm_primary()
        async with connection.client.start_session(snapshot=True) as session:
            with path.open("wb") as file, gzip.open(file, "wb", compresslevel=1) as packed:
                number = await connection.counters.find_one({"_id": SCHEMA_NUMBER}, session=session)
                await connection.require_primary(primary)
                _write_line(packed, {"format": _FORMAT, "schema": number["value"] if number else 0})
                for name in _COLLECTIONS:
                    counts[name] = 0
                    _write_line(packed, {"collection": name})
                    collection = connection.database[name].with_options(codec_options=_RAW)
                    async for document in collection.find(_PARTS.get(name, {}), session=session, batch_size=_BATCH):
                        packed.write(document.raw)
                        counts[name] += 1
                        if counts[name] % _BATCH == 0:
                            progress(sum(counts.values()), total)
                    packed.write(_END)
                _write_line(packed, {"counts": counts})
    except PyMongoError as error:
        if is_transient(error):
            raise OSError(
                "The backup was interrupted: an election, or it took longer than minSnapshotHistoryWindowInSeconds. Start it again."
            ) from None
        raise operator_error(error, connection.database.name) from None
    if _verify(path) != counts:
        raise ValueError(f"{path} does not hold what was written to it.")
    return counts


async def restore_backup(path: Path, url: str) -> dict[str, int]:
    """Insert the documents of the file into the database, which must be empty or hold an interrupted restore of it.

    See :mod:`fhir_server.store.backup`.
    """
    counts = _verify(path)
    store = connect(url)
    connection = store.connection
    connection.is_copy_target = True
    try:
        await store.prepare()
        state = await connection.counters.find_one_and_update(
            {"_id": COPY_STATE}, {"$setOnInsert": {"source": _SOURCE, "after": ["", ""]}}, upsert=True
        )
        if state is not None and state["source"] != _SOURCE:
            raise ValueError(f"The database {connection.database.name} holds an interrupted copy of another store.")
        for name, documents in _read(path):
            collection = connection.database[name].with_options(codec_options=_RAW)
            for batch in _batches(documents):
                if name == "counters" or state is not None:  # some exist: preparing the database made them, or the first attempt
                    await collection.bulk_write([ReplaceOne(_key(document), document, upsert=True) for document in batch], ordered=False)
                else:
                    await collection.insert_many(batch, ordered=False)
        for name, count in counts.items():
            found = await connection.database[name].count_documents({})
            # MongoDB may have removed expired secrets again
            if (found < count or (found > count and name not in _GROWING)) and name != "secrets":
                raise ValueError(f"The collection {name} has {found} documents, the backup {count}.")
        await connection.counters.delete_one({"_id": COPY_STATE})
    except PyMongoError as error:
        raise operator_error(error, connection.database.name) from None
    finally:
        await store.close()
    return counts


def _verify(path: Path) -> dict[str, int]:
    """Return the numbers of documents in the file.  Raises ValueError if they are not those at its end, or it cannot be read."""
    try:
        found = {name: sum(1 for _ in documents) for name, documents in _read(path)}
        with gzip.open(path, "rb") as packed:
            first: dict[str, Any] = json.loads(packed.readline())
    except (ValueError, KeyError, EOFError, OSError, zlib.error):
        raise ValueError(f"{path} is no complete backup of a MongoDB store.") from None
    if first["schema"] > SCHEMA:
        raise ValueError(f"{path} was written by a later version of this program (schema {first['schema']}, known: {SCHEMA}).")
    return found


def _read(path: Path) -> Iterator[tuple[str, Iterator[RawBSONDocument]]]:
    """Yield the name of each collection and its documents, which must be read before the next one.

    Raises ValueError, KeyError, EOFError, OSError or zlib.error for a file that is not whole.
    """
    counts: dict[str, int] = {}
    with gzip.open(path, "rb") as packed:
        if json.loads(packed.readline())["format"] != _FORMAT:
            raise ValueError("another format")
        while name := (line := json.loads(packed.readline())).get("collection"):
            counts[name] = 0
            yield name, _documents(packed, counts, name)
        if line["counts"] != counts:
            raise ValueError("documents are missing")


def _documents(packed: gzip.GzipFile, counts: dict[str, int], name: str) -> Iterator[RawBSONDocument]:
    while (length := packed.read(4)) != _END:
        size = int.from_bytes(length, "little")
        body = packed.read(size - 4)
        if len(length) < 4 or len(body) < size - 4:
            raise EOFError
        counts[name] += 1
        yield RawBSONDocument(length + body, _RAW)


def _key(document: RawBSONDocument) -> dict[str, Any]:
    return {member: document[member] for member in ("_id", "rid") if member in document}


def _batches(documents: Iterator[RawBSONDocument]) -> Iterator[list[RawBSONDocument]]:
    batch: list[RawBSONDocument] = []
    for document in documents:
        batch.append(document)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_line(packed: gzip.GzipFile, value: dict[str, Any]) -> None:
    packed.write(json.dumps(value).encode() + b"\n")
