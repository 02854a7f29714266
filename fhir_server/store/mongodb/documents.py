"""Resources, their versions and their index entries as MongoDB documents.

A document holds the resource twice: ``body`` is the text as it is served, byte for byte, and ``resource`` the same
as a native document for ``mongosh`` (decimals as Decimal128).  Beside them stand the row's class, patients and
release, and its index entries, one array a kind: ``{p: parameter, v: value, ..., c: class}``.
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
from fhir_server.store import GuardedReference, LabeledElement, Row, VersionDigest
from fhir_server.store.row_order import patient_number

Document = dict[str, Any]

# for each kind of entry its array, and the members of an element in the order of the entry's value
ARRAYS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "token": ("tok", ("s", "v")),
    "reference": ("ref", ("v",)),
    "string": ("str", ("v", "e")),
    "date": ("dat", ("lo", "hi")),
    "quantity": ("num", ("v", "s", "k", "u")),
}

# what a Row is made of; the native document, which no answer needs, and the entries are left behind
JUDGED: Final = dict.fromkeys(("type", "id", "n", "at", "patients", "class", "release"), 1)
ROW: Final = JUDGED | dict.fromkeys(("version", "updated", "interaction", "body", "more"), 1)
ENTRIES: Final = {array: 1 for array, _ in ARRAYS.values()}

_LARGEST: Final = 16 * 1024 * 1024 - 64 * 1024  # the server's bound on a document, and room for what it adds
_CLEARLY_SMALL: Final = 1024 * 1024  # a body from which no document of that size can come
_DEEPEST: Final = 90  # levels of nesting that a server surely takes


class _More(msgspec.Struct, array_like=True):
    """What most rows leave empty."""

    labeled_elements: tuple[LabeledElement, ...]
    guarded_references: tuple[GuardedReference, ...]
    version_digests: tuple[VersionDigest, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_More).decode
_NO_MORE: Final = _More((), (), ())


def name(type: str, id: str) -> str:
    """The ``_id`` of a resource's document."""
    return f"{type}/{id}"


def document(row: Row, entries: Iterable[Entry], stored: str, at: str) -> Document:
    """The document of a version stored at ``stored``; as a current one the row stands at ``at``.

    Raises Problem ``too_large`` for what MongoDB cannot hold in one document.
    """
    made: Document = {
        "_id": name(row.type, row.id),
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
    if len(row.patients) > 1:
        made["others"] = list(row.patients[1:])
    if row.labeled_elements or row.guarded_references or row.version_digests:
        made["more"] = _encode(_More(row.labeled_elements, row.guarded_references, row.version_digests))
    made |= arrays(entries)
    if (resource := native(row.body)) is not None:
        made["resource"] = resource
    return made if len(row.body) < _CLEARLY_SMALL else _fitting(made)


def _fitting(made: Document) -> Document:
    """The document, without its native half where both do not fit."""
    if len(bson.encode(made)) > _LARGEST:
        made.pop("resource", None)
        if len(bson.encode(made)) > _LARGEST:
            raise Problem("too_large", "The resource is larger than this server's database can keep (16 MB with its index).")
    return made


def arrays(entries: Iterable[Entry]) -> Document:
    """The index entries, without repetitions, in the array of their kind."""
    found: dict[str, dict[tuple[Any, ...], Document]] = {}
    for entry in entries:
        array, members = ARRAYS[entry.kind]
        value = (float(entry.value[0] or 0), *entry.value[1:]) if entry.kind == "quantity" else entry.value
        element = {"p": entry.param, **dict(zip(members, value, strict=True)), "c": entry.class_id}
        found.setdefault(array, {})[tuple(element.values())] = element
    return {array: list(elements.values()) for array, elements in found.items()}


def entries(made: Mapping[str, Any]) -> tuple[Entry, ...]:
    """The entries of a document (without their paths)."""
    return tuple(
        [
            Entry(element["p"], kind, tuple([plain(element[member]) for member in members]), (), element["c"])
            for kind, (array, members) in ARRAYS.items()
            for element in made.get(array, ())
        ]
    )


def plain(value: Any) -> Any:
    """The value without BSON's type for whole numbers of 64 bits, which our other encoders do not know."""
    return int(value) if isinstance(value, Int64) else value


def row(made: Mapping[str, Any]) -> Row:
    """The Row of a document that has the members of :data:`ROW`."""
    more = made.get("more")
    kept = _decode(more) if more is not None else _NO_MORE
    return Row(
        made["type"],
        made["id"],
        made["version"],
        int(made["updated"]),
        tuple(made["patients"]),
        made["class"],
        int(made["release"]),
        made["body"],
        kept.labeled_elements,
        kept.guarded_references,
        kept.version_digests,
        made["interaction"],
    )


def indexed(made: Mapping[str, Any]) -> SearchableRow:
    """The document as conditions see it; with its entries if they were fetched."""
    return SearchableRow(made["type"], made["id"], tuple(made["patients"]), made["class"], made["release"], entries(made))


def past(made: Mapping[str, Any]) -> Document:
    """The document of the history that keeps this version."""
    kept = {member: value for member, value in made.items() if member != "_id"}
    return of_version(made["_id"], made["version"]) | kept


def of_version(name: str, version: int) -> Document:
    """The filter that names one document of the history, and by ``rid`` the shard it is on."""
    return {"_id": f"{name}/{version}", "rid": name}


def native(body: bytes) -> RawBSONDocument | None:
    """The JSON object as BSON; None for what is none, or cannot be one (a whole number of more than 64 bits, deep nesting)."""
    try:
        value = jsontext.parse(body)
        if not isinstance(value, dict) or _depth(body) > _DEEPEST:
            return None
        return RawBSONDocument(bson.encode(value, codec_options=_NATIVE))
    except (Problem, bson.errors.InvalidDocument, OverflowError, UnicodeEncodeError):
        return None


def _depth(body: bytes) -> int:
    """At least the depth of nesting of this text."""
    if body.count(b"{") + body.count(b"[") <= _DEEPEST:
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
    """Decimal128 with the same digits; a number of more digits than it holds, as text."""
    if not isinstance(value, decimal.Decimal):
        return value
    context = _exact.copy()
    held = context.create_decimal(value)
    return str(value) if context.flags[decimal.Inexact] or context.flags[decimal.Overflow] else Decimal128(held)


_registry: Callable[..., TypeRegistry] = TypeRegistry
_NATIVE: Final[CodecOptions[Document]] = CodecOptions(type_registry=_registry(fallback_encoder=_decimal))
