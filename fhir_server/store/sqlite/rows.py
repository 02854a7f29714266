"""Encodes rows and index entries for the SQLite tables, and decodes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

import msgspec

from fhir_server.search.rows import Entry
from fhir_server.store import GuardedReference, LabeledElement, Row, VersionHistory, VersionStamp
from fhir_server.store.sqlite.interning import Names
from fhir_server.store.sqlite.schema import PATIENT_BITS, SEQUENCE

RowInteraction = Literal["create", "update", "delete"]
INTERACTIONS: Final[tuple[RowInteraction, ...]] = ("create", "update", "delete")

# for each kind of entry its table and the columns after ``rid``; the first is ``param``, the last ``vclass``
TABLES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "token": ("tok", ("param", "code", "system", "vclass")),
    "reference": ("ref", ("param", "target", "vclass")),
    "string": ("str", ("param", "folded", "exact", "vclass")),
    "date": ("dat", ("param", "hi", "lo", "vclass")),
    "quantity": ("num", ("param", "number", "system", "code", "unit", "vclass")),
    "words": ("txt", ("param", "words", "vclass")),  # since schema 6, as the next one
    "position": ("geo", ("param", "z", "x", "y", "vclass")),
}
KINDS: Final = tuple(TABLES)
BANDED: Final = frozenset({"token", "reference", "date"})  # kinds whose tables also have the row's band
VALUE_BY_BAND: Final = frozenset({"token", "reference"})  # those of them whose index by value has it too

# what ``decode_row`` takes, from ``res AS r``; a sub-select for the body costs a quarter of a join for single rows
COLUMNS: Final = "r.rid, r.version, r.updated, r.vclass, r.release_at, r.interaction, r.extra, (SELECT body FROM body WHERE rid = r.rid)"

# for each of KINDS its rows, with the columns of TABLES
IndexRows = tuple[list[tuple[Any, ...]], ...]


class _Extra(msgspec.Struct, array_like=True):
    """Values that most rows leave empty.  ``patients`` is None and ``stored`` 0 if the ``rid`` holds the same value."""

    patients: tuple[str, ...] | None
    labeled_elements: tuple[LabeledElement, ...]
    guarded_references: tuple[GuardedReference, ...]
    history: VersionHistory | None
    stored: int = 0


class _Undecoded(msgspec.Struct, array_like=True):
    """The same, of which only the history is of interest, and not decoded."""

    patients: msgspec.Raw
    labeled_elements: msgspec.Raw
    guarded_references: msgspec.Raw
    history: msgspec.Raw


_NIL: Final = b"\xc0"  # None in MessagePack

_encode = msgspec.msgpack.Encoder().encode
_decode_extra = msgspec.msgpack.Decoder(_Extra).decode
_decode_undecoded = msgspec.msgpack.Decoder(_Undecoded).decode
_decode_rows = msgspec.msgpack.Decoder(IndexRows).decode


def decode_row(type: str, id: str, values: tuple[Any, ...], names: Names) -> Row:
    """Return the Row with these values of ``COLUMNS``."""
    rid, version, updated, class_id, release_at, interaction, extra, body = values
    if extra is None:
        owner = names.owner(rid >> PATIENT_BITS)
        return Row(type, id, version, updated, owner, class_id, release_at, body, (), (), None, INTERACTIONS[interaction])
    more = _decode_extra(extra)
    return Row(
        type,
        id,
        version,
        updated,
        names.owner(rid >> PATIENT_BITS) if more.patients is None else more.patients,
        class_id,
        release_at,
        body,
        more.labeled_elements,
        more.guarded_references,
        more.history,
        INTERACTIONS[interaction],
    )


def decode_patients(rid: int, extra: bytes | None, names: Names) -> tuple[str, ...]:
    """Return the patients of a row from its ``rid`` and ``extra`` columns."""
    several = _decode_extra(extra).patients if extra is not None else None
    return names.owner(rid >> PATIENT_BITS) if several is None else several


def decode_stored(rid: int, extra: bytes | None) -> int:
    """Return the sequence number under which this version was stored.  Its ``rid`` may have an earlier version's instead."""
    return (_decode_extra(extra).stored if extra is not None else 0) or rid & SEQUENCE


def decode_stamp(values: tuple[Any, ...]) -> VersionStamp:
    """Return the VersionStamp with these values of version, updated, vclass, release_at, extra.  Its history is not decoded."""
    version, updated, class_id, release_at, extra = values
    encoded = bytes(_decode_undecoded(extra).history) if extra is not None else _NIL
    return VersionStamp(version, updated, class_id, release_at, None if encoded == _NIL else encoded)


def encode_extra(row: Row, stored: int = 0) -> bytes | None:
    """Return the ``extra`` column of this row.  ``stored`` is its sequence number if that differs from the one in its ``rid``."""
    several = row.patients if len(row.patients) > 1 else None
    if several is None and not (row.labeled_elements or row.guarded_references or row.history or stored):
        return None
    return _encode(_Extra(several, row.labeled_elements, row.guarded_references, row.history, stored))


def with_stored(rid: int, extra: bytes | None, stored: int) -> bytes:
    """Return an ``extra`` column with another sequence number."""
    more = _decode_extra(extra) if extra is not None else _Extra(None, (), (), None)
    return _encode(msgspec.structs.replace(more, stored=0 if rid & SEQUENCE == stored else stored))


def index_rows(type: str, entries: Iterable[Entry], names: Names) -> IndexRows:
    """Return the index rows of these entries, without repetitions.  Names that are new to the store get numbers."""
    rows: dict[str, dict[tuple[Any, ...], None]] = {kind: {} for kind in KINDS}
    for entry in entries:
        param = names.intern(f"{entry.kind}:{type}.{entry.param}")
        rows[entry.kind][_INDEXED[entry.kind](param, entry.value, entry.class_id, names)] = None
    return tuple(map(list, rows.values()))


_INDEXED: Final[dict[str, Callable[[int, tuple[Any, ...], int, Names], tuple[Any, ...]]]] = {
    "token": lambda param, value, class_id, names: (param, value[1], names.intern_system(value[0]), class_id),
    "reference": lambda param, value, class_id, names: (param, value[0], class_id),
    "string": lambda param, value, class_id, names: (param, value[0], value[1], class_id),
    "date": lambda param, value, class_id, names: (param, value[1], value[0], class_id),
    "quantity": lambda param, value, class_id, names: (
        (param, float(value[0]), names.intern_system(value[1]), value[2], value[3], class_id)
    ),
    "words": lambda param, value, class_id, names: (param, value[0], class_id),
    "position": lambda param, value, class_id, names: (param, float(value[2]), float(value[0]), float(value[1]), class_id),
}

_VALUE: Final[dict[str, Callable[[tuple[Any, ...], Names], tuple[Any, ...]]]] = {
    "token": lambda row, names: (names.system_text(row[2]), row[1]),
    "reference": lambda row, names: (row[1],),
    "string": lambda row, names: (row[1], row[2]),
    "date": lambda row, names: (row[2], row[1]),
    "quantity": lambda row, names: (row[1], names.system_text(row[2]), row[3], row[4]),
    "words": lambda row, names: (row[1],),
    "position": lambda row, names: (row[2], row[3], row[1]),
}


def pack(rows: IndexRows) -> bytes:
    """Encode index rows for the ``entries`` column."""
    return _encode(rows)


def unpack(text: bytes) -> IndexRows:
    """Decode the ``entries`` column; one that an earlier schema wrote has fewer kinds."""
    rows = _decode_rows(text)
    return (*rows, *[[] for _ in KINDS[len(rows) :]])


def decode_value(kind: str, row: tuple[Any, ...], names: Names) -> tuple[Any, ...]:
    """Return the value of an entry from the columns of its table (:data:`TABLES`)."""
    return _VALUE[kind](row, names)


def decode_entries(text: bytes, names: Names) -> tuple[Entry, ...]:
    """Return the entries of an ``entries`` column, without their paths."""
    decoded = []
    for kind, rows in zip(KINDS, unpack(text), strict=True):
        for row in rows:
            param = names.text(row[0]).partition(".")[2]
            decoded.append(Entry(param, kind, _VALUE[kind](row, names), (), row[-1]))
    return tuple(decoded)
