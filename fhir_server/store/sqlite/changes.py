"""Versions in the order of time in SQLite; see :mod:`fhir_server.store.changes`.

``change`` has each stored version once for any patient (0) and once for each patient of its own, by band.  ``purged`` has the purged
versions with which somebody's newest number began, by type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fhir_server.clock import MAX_INSTANT
from fhir_server.search.visibility import Visibility
from fhir_server.store import Row
from fhir_server.store.changes import Change, ChangeRange, Part, Place, merge, purged_beginnings, sources
from fhir_server.store.sqlite import rows as rows_
from fhir_server.store.sqlite.rows import COLUMNS
from fhir_server.store.sqlite.translate import class_mask, ids_array

if TYPE_CHECKING:
    from fhir_server.store.sqlite.reader import SqliteSnapshot
    from fhir_server.store.sqlite.transaction import SqliteTransaction

ANY_PATIENT: Final = 0
_IN_BAND: Final = "SELECT updated, id, version FROM change WHERE owner = ? AND band = ? AND release_at <= ?"
_PURGED: Final = "SELECT updated, id, version FROM purged WHERE owner = ? AND type = ?"
_AMONG: Final = " AND id IN (SELECT value FROM carray(?))"
_NAMED: Final = (
    "SELECT updated, id, version FROM (SELECT updated, id, version, vclass, release_at FROM past WHERE type = ?1 AND id IN (SELECT value"
    " FROM carray(?2)) UNION ALL SELECT updated, id, version, vclass, release_at FROM res WHERE type = ?1 AND id IN (SELECT value FROM"
    " carray(?2)))"
    " WHERE substr(?3, vclass + 1, 1) = x'01' AND release_at <= ?4"
)
_NEWEST_FIRST: Final = " AND (updated, id, version) < (?, ?, ?) AND updated >= ? ORDER BY updated DESC, id DESC, version DESC LIMIT ?"
_OLDEST_FIRST: Final = " AND (updated, id, version) > (?, ?, ?) AND updated < ? ORDER BY updated, id, version LIMIT ?"
_INSERT: Final = "INSERT OR IGNORE INTO change(owner, band, updated, id, version, release_at) VALUES "
_DELETE: Final = "DELETE FROM change WHERE owner = ? AND band = ? AND updated = ? AND id = ? AND version = ?"
_INSERT_PURGED: Final = "INSERT OR IGNORE INTO purged(owner, type, updated, id, version) VALUES (?, ?, ?, ?, ?)"
_DELETE_PURGED: Final = "DELETE FROM purged WHERE type = ? AND id = ?"
_LABELS: Final = (
    "SELECT rid, version, updated, vclass, release_at, extra FROM past WHERE type = ?1 AND id = ?2"
    " UNION ALL SELECT rid, version, updated, vclass, release_at, extra FROM res WHERE type = ?1 AND id = ?2"
)
_CURRENT: Final = f"SELECT {COLUMNS} FROM res r WHERE r.type = ? AND r.id = ?"


class _List(NamedTuple):
    """A statement that reads versions in order, without its end, and the first values of its arguments."""

    sql: str
    args: tuple[Any, ...]


async def changes(snapshot: SqliteSnapshot, visibilities: Mapping[str, Visibility], limit: int, range: ChangeRange) -> tuple[Change, ...]:
    """See :meth:`fhir_server.store.Snapshot.changes_unfiltered`."""
    lists = [(type, one) for type, visibility in visibilities.items() for one in _lists(snapshot, type, visibility)]
    ending = _OLDEST_FIRST if range.ascending else _NEWEST_FIRST
    bound = range.until if range.ascending else range.since

    async def read(parts: list[Part[_List]]) -> list[list[Place]]:
        found: list[list[Place]] = []
        for (sql, args), start, count in parts:
            found.append([(row[0], row[1], row[2]) for row in snapshot.rows(sql + ending, (*args, *start, bound, count))])
        return found

    keys = await merge(lists, range, limit, read)
    numbers: dict[tuple[str, str], list[int]] = {}
    for key in keys:
        numbers.setdefault((key.type, key.id), []).append(key.version)
    stamps = {name: await snapshot.stamps_unfiltered(*name, versions) for name, versions in numbers.items()}
    return tuple([Change(key, stamps[key.type, key.id].get(key.version)) for key in keys])


async def newest_of(
    snapshot: SqliteSnapshot, names: Sequence[tuple[str, str]], visibilities: Mapping[str, Visibility]
) -> dict[tuple[str, str], Row]:
    """See :meth:`fhir_server.store.Snapshot.newest_of`."""
    found = {name: await snapshot.newest(*name, visibilities[name[0]]) for name in names}
    return {name: row for name, row in found.items() if row is not None}


def _lists(snapshot: SqliteSnapshot, type: str, visibility: Visibility) -> Iterable[_List]:
    names = snapshot.names
    number = names.number("type:" + type)
    if number is None:
        return
    for source in sources(visibility):
        owner = ANY_PATIENT if source.patient is None else names.patient(source.patient)
        if owner is None:
            continue
        released = MAX_INSTANT if source.released is None else source.released
        if source.ids is None:
            yield _List(_PURGED, (owner, number))
        else:
            yield _List(_PURGED + _AMONG, (owner, number, ids_array(source.ids)))
            yield _List(_NAMED, (number, ids_array(source.ids), class_mask(source.classes), released))
            continue
        for band in names.admitted_bands(number, source.classes).both:
            yield _List(_IN_BAND, (owner, band, released))


def add(transaction: SqliteTransaction, type: int, row: Row) -> None:
    """Enter a version that has been stored."""
    keys = _keys(transaction, type, row)
    values = [value for key in keys for value in (*key, row.release_at)]
    transaction.connection.execute(_INSERT + ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(keys)), values)  # one statement costs less than two


def remove(transaction: SqliteTransaction, type: int, row: Row) -> None:
    """Remove a stored version."""
    transaction.connection.executemany(_DELETE, _keys(transaction, type, row))


def _keys(transaction: SqliteTransaction, type: int, row: Row) -> list[tuple[Any, ...]]:
    owners = [ANY_PATIENT, *[transaction.names.intern_patient(patient) for patient in row.patients]]
    band = transaction.band(type, row)
    return [(owner, band, row.updated, row.id, row.version) for owner in owners]


def remove_versions(transaction: SqliteTransaction, type: int, id: str, numbers: Iterable[int] | None = None) -> None:
    """Remove these versions (None: all) of a resource, which are still stored, and all purged ones."""
    chosen = None if numbers is None else frozenset(numbers)
    found: list[tuple[Any, ...]] = transaction.connection.execute(_LABELS, (type, id)).fetchall()
    for rid, version, updated, class_id, release_at, extra in found:
        if chosen is None or version in chosen:
            patients = rows_.decode_patients(rid, extra, transaction.names)
            remove(transaction, type, Row("", id, version, updated, patients, class_id, release_at, b""))
    transaction.connection.execute(_DELETE_PURGED, (type, id))


def keep_purged(transaction: SqliteTransaction, type: int, name: tuple[str, str]) -> None:
    """Enter the purged versions with which somebody's newest number began, after a purge of the resource ``Type, id``."""
    found: list[tuple[Any, ...]] = transaction.connection.execute(_CURRENT, (type, name[1])).fetchall()
    if not found:
        return
    row = rows_.decode_row(*name, found[0], transaction.names)
    versions: list[tuple[Any, ...]] = transaction.connection.execute(_LABELS, (type, row.id)).fetchall()
    stored = {version for _, version, *_ in versions}
    owners = [ANY_PATIENT, *[transaction.names.intern_patient(patient) for patient in row.patients]]
    beginnings = purged_beginnings(row.history, stored)
    transaction.connection.executemany(
        _INSERT_PURGED, [(owner, type, updated, row.id, version) for owner in owners for version, updated in beginnings.items()]
    )
