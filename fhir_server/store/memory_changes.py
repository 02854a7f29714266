"""Versions in the order of time in the reference store; see :mod:`fhir_server.store.changes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from fhir_server.search.visibility import Visibility
from fhir_server.store.changes import Change, ChangeKey, ChangeRange, Source, purged_beginnings, sources
from fhir_server.store.interface import Snapshot
from fhir_server.store.rows import Row
from fhir_server.store.version_history import VersionStamp, encode_history


class _Version(Protocol):
    @property
    def row(self) -> Row: ...


async def newest_of(
    snapshot: Snapshot, names: Sequence[tuple[str, str]], visibilities: Mapping[str, Visibility]
) -> dict[tuple[str, str], Row]:
    """See :meth:`fhir_server.store.Snapshot.newest_of`."""
    found = {name: await snapshot.newest(*name, visibilities[name[0]]) for name in names}
    return {name: row for name, row in found.items() if row is not None}


def changes(
    histories: Mapping[tuple[str, str], Sequence[_Version]], visibilities: Mapping[str, Visibility], limit: int, range: ChangeRange
) -> tuple[Change, ...]:
    """See :meth:`fhir_server.store.Snapshot.changes_unfiltered`; ``histories``: the versions of each resource, oldest first."""
    found: dict[ChangeKey, VersionStamp | None] = {}
    for (type, id), versions in histories.items():
        for source in sources(visibilities.get(type, Visibility())):
            if source.ids is None or id in source.ids:
                found |= _of_resource([version.row for version in versions], source)
    chosen = [key for key in found if range.since <= key.updated < range.until and _is_after(key, range)]
    return tuple([Change(key, found[key]) for key in sorted(chosen, reverse=not range.ascending)[:limit]])


def _of_resource(rows: Sequence[Row], source: Source) -> dict[ChangeKey, VersionStamp | None]:
    newest = rows[-1]
    purged = purged_beginnings(newest.history, {row.version for row in rows}) if _is_owned(newest, source) else {}
    found: dict[ChangeKey, VersionStamp | None] = {}
    found |= {ChangeKey(updated, newest.type, newest.id, version): None for version, updated in purged.items()}
    for row in rows:
        is_released = source.released is None or row.release_at <= source.released
        if _is_owned(row, source) and row.class_id in source.classes and is_released:
            found[ChangeKey(row.updated, row.type, row.id, row.version)] = stamp(row)
    return found


def _is_owned(row: Row, source: Source) -> bool:
    return source.patient is None or source.patient in row.patients


def _is_after(key: ChangeKey, range: ChangeRange) -> bool:
    place, start = (key.updated, key.id, key.version), range.start(key.type)
    return place > start if range.ascending else place < start


def stamp(row: Row) -> VersionStamp:
    """What is kept of a version besides the resource itself."""
    encoded = encode_history(row.history) if row.history else None
    return VersionStamp(row.version, row.updated, row.class_id, row.release_at, encoded)
