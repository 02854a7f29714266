"""Encodes versions of resources with their index entries as MongoDB documents, and decodes them.

A document holds the resource twice: ``body`` is the JSON text, byte for byte, and ``resource`` is the same as a native
document for ``mongosh`` (decimals as Decimal128).  It also holds the row's class, patients and release, and its index
entries, one array for each kind: ``{p: parameter, v: value, ..., c: class}``.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import bson
import msgspec
from bson.codec_options import CodecOptions, TypeRegistry
from bson.decimal128 import Decimal128, create_decimal128_context
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.search.rows import Entry, SearchableRow
from fhir_server.store import GuardedReference, IndexedRow, LabeledElement, Row, VersionStamp
from fhir_server.store.row_order import patient_number
from fhir_server.store.version_history import decode_history, encode_history

Document = dict[str, Any]

# for each kind of entry its array, and the members of an array element in the order of the entry's value
ARRAYS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "token": ("tok", ("s", "v")),
    "reference": ("ref", ("v",)),
    "string": ("str", ("v", "e")),
    "date": ("dat", ("lo", "hi")),
    "quantity": ("num", ("v", "s", "k", "u")),
    "words": ("txt", ("v",)),
    "position": ("geo", ("x", "y", "z")),
}

FIRST_PATIENT: Final = "patients.0"
"""The path of a row's first patient.  An index of it has one key for each row, unlike one of all patients, so it can answer alone."""

# the members that decide about visibility, and those that a Row is decoded from; without ``resource`` and the entries
VISIBILITY: Final = dict.fromkeys(("type", "id", "n", "at", "patients", "class", "release"), 1)
ROW: Final = VISIBILITY | dict.fromkeys(("version", "updated", "interaction", "body", "more", "history"), 1)
STAMP: Final = {"_id": 0, **dict.fromkeys(("version", "updated", "class", "release", "history"), 1)}
ENTRIES: Final = {array: 1 for array, _ in ARRAYS.values()}

_MAX_DOCUMENT: Final = 16 * 1024 * 1024 - 64 * 1024  # MongoDB's limit for a document, less what it adds itself
SMALL_BODY: Final = 1024 * 1024  # a smaller body cannot become a document of that size
_MAX_DEPTH: Final = 90  # levels of nesting that every MongoDB version accepts


class _More(msgspec.Struct, array_like=True):
    """Values that most rows leave empty."""

    labeled_elements: tuple[LabeledElement, ...]
    guarded_references: tuple[GuardedReference, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_More).decode
_NO_MORE: Final = _More((), ())


def document_id(type: str, id: str) -> str:
    """Return the ``_id`` of a resource's document."""
    return f"{type}/{id}"


def record_name(patient: str, type: str) -> str:
    """Return the name of a patient's rows of one type: the member ``record`` of those of which this is the first patient."""
    return f"{patient}/{type}"


def encode_document(row: Row, entries: Iterable[Entry], stored: str, at: str) -> Document:
    """Return the document of a version that was stored at ``stored`` and whose place is ``at`` while it is current.

    Raises Problem ``too_large`` if it does not fit into one MongoDB document.
    """
    document: Document = {
        "_id": document_id(row.type, row.id),
        "type": row.type,
        "id": row.id,
        "n": patient_number(row.patients[0]) if row.patients else 0,
        "at": at,
        "stored": stored,
        "patients": list(row.patients),
        "version": row.version,
        "updated": row.updated,
        "class": row.class_id,
        "release": row.release_at,
        "interaction": row.interaction,
        "body": row.body,
    }
    if row.patients:
        document["record"] = record_name(row.patients[0], row.type)
    if len(row.patients) > 1:
        document["others"] = list(row.patients[1:])
    if row.labeled_elements or row.guarded_references:
        document["more"] = _encode(_More(row.labeled_elements, row.guarded_references))
    if row.history is not None:
        document["history"] = encode_history(row.history)
    document |= encode_entries(entries)
    if (resource := encode_native(row.body)) is not None:
        document["resource"] = resource
    return document if len(row.body) < SMALL_BODY else _fit(document)


def _fit(document: Document) -> Document:
    """Return the document, without ``resource`` if it is too large with it."""
    if len(bson.encode(document)) > _MAX_DOCUMENT:
        document.pop("resource", None)
        if len(bson.encode(document)) > _MAX_DOCUMENT:
            raise Problem("too_large", "The resource is too large for this server's database (16 MB with its index).")
    return document


def encode_entries(entries: Iterable[Entry]) -> Document:
    """Return the arrays of index entries, without repetitions, by array name."""
    elements_of: dict[str, dict[tuple[Any, ...], Document]] = {}
    for entry in entries:
        array, members = ARRAYS[entry.kind]
        value = (float(entry.value[0] or 0), *entry.value[1:]) if entry.kind == "quantity" else entry.value
        if entry.kind == "position":
            value = tuple([float(one or 0) for one in value])
        element = {"p": entry.param, **dict(zip(members, value, strict=True)), "c": entry.class_id}
        elements_of.setdefault(array, {})[tuple(element.values())] = element
    return {array: list(elements.values()) for array, elements in elements_of.items()}


def decode_entries(document: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Return the index entries of a document, without their paths."""
    return tuple(
        [
            Entry(element["p"], kind, tuple([plain(element[member]) for member in members]), (), element["c"])
            for kind, (array, members) in ARRAYS.items()
            for element in document.get(array, ())
        ]
    )


def plain(value: Any) -> Any:
    """Return the value with BSON's type for 64-bit integers converted to int, because other encoders do not know it."""
    return int(value) if isinstance(value, Int64) else value


def decode_row(document: Mapping[str, Any]) -> Row:
    """Return the Row of a document that has the members of :data:`ROW`."""
    encoded, history = document.get("more"), document.get("history")
    more = _decode(encoded) if encoded is not None else _NO_MORE
    return Row(
        document["type"],
        document["id"],
        document["version"],
        int(document["updated"]),
        tuple(document["patients"]),
        document["class"],
        int(document["release"]),
        document["body"],
        more.labeled_elements,
        more.guarded_references,
        decode_history(history) if history is not None else None,
        document["interaction"],
    )


def decode_stamp(document: Mapping[str, Any]) -> VersionStamp:
    """Return the VersionStamp of a document that has the members of :data:`STAMP`."""
    version, updated, class_id, release_at = [int(document[member]) for member in ("version", "updated", "class", "release")]
    return VersionStamp(version, updated, class_id, release_at, document.get("history"))


def searchable(document: Mapping[str, Any]) -> SearchableRow:
    """Return the row as conditions are evaluated on it, with its entries if the document has them."""
    return SearchableRow(
        document["type"], document["id"], tuple(document["patients"]), document["class"], document["release"], decode_entries(document)
    )


def history_document(document: Mapping[str, Any]) -> Document:
    """Return the document that stores this version in the history."""
    members = {member: value for member, value in document.items() if member != "_id"}
    return version_key(document["_id"], document["version"]) | members


def has_same_view(document: Any, row: Row) -> bool:
    """Return whether the previous version had the same class, release and patients, and so has the same place."""
    return (document["class"], document["release"], tuple(document["patients"])) == (row.class_id, row.release_at, row.patients)


def relabeled_document(document: Any, indexed: IndexedRow) -> Document:
    """Return a stored version's document with new labels; body, time and interaction do not change."""
    before = decode_row(document)
    row = msgspec.structs.replace(indexed.row, body=before.body, updated=before.updated, interaction=before.interaction)
    return encode_document(row, indexed.entries, document["stored"], document["at"])


def version_key(name: str, version: int) -> Document:
    """Return the filter for one document of the history.  Its ``rid`` determines the shard."""
    return {"_id": f"{name}/{version}", "rid": name}


def encode_native(body: bytes) -> RawBSONDocument | None:
    """Return the JSON object as BSON; None if that is impossible (an integer of more than 64 bits, deep nesting)."""
    try:
        value = jsontext.parse(body)
        if not isinstance(value, dict) or _depth(body) > _MAX_DEPTH:
            return None
        return RawBSONDocument(bson.encode(value, codec_options=_NATIVE))
    except (Problem, bson.errors.InvalidDocument, OverflowError, UnicodeEncodeError):
        return None


def _depth(body: bytes) -> int:
    """Return an upper bound of the depth of nesting of this text; 0 if it is clearly below the limit."""
    if body.count(b"{") + body.count(b"[") <= _MAX_DEPTH:
        return 0
    deepest = level = 0
    for step in body.translate(None, _NOT_BRACKETS):
        level += 1 if step in b"{[" else -1
        deepest = max(deepest, level)
    return deepest


_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"{[]}"))

_exact = create_decimal128_context()
_exact.traps = dict.fromkeys(_exact.traps, False)


def _decimal(value: Any) -> Any:
    """Return a Decimal128 with the same digits; a number with too many digits as text."""
    if not isinstance(value, decimal.Decimal):
        return value
    context = _exact.copy()
    converted = context.create_decimal(value)
    return str(value) if context.flags[decimal.Inexact] or context.flags[decimal.Overflow] else Decimal128(converted)


_registry: Callable[..., TypeRegistry] = TypeRegistry
_NATIVE: Final[CodecOptions[Document]] = CodecOptions(type_registry=_registry(fallback_encoder=_decimal))
