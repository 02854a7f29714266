"""Purges earlier versions in SQLite; see :mod:`fhir_server.store.version_purge`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fhir_server.store.sqlite import changes
from fhir_server.store.sqlite import rows as rows_
from fhir_server.store.version_history import HORIZON
from fhir_server.store.version_purge import StoredVersion, choose

if TYPE_CHECKING:
    from fhir_server.store.sqlite.reader import SqliteSnapshot
    from fhir_server.store.sqlite.transaction import SqliteTransaction

_COLUMNS: Final = "rid, version, updated, vclass, release_at, interaction, extra"
_VERSIONS: Final = (
    f"SELECT n, {_COLUMNS}, EXISTS (SELECT 1 FROM ref WHERE ref.rid = -past.n) FROM past WHERE type = ?1 AND id = ?2"
    f" UNION ALL SELECT 0, {_COLUMNS}, 0 FROM res WHERE type = ?1 AND id = ?2 ORDER BY version"
)
_HORIZON: Final = "SELECT value FROM secret WHERE kind = ? AND key = ''"
_WITH_PAST: Final = "SELECT DISTINCT type, id FROM past WHERE (type, id) > (?, ?) ORDER BY type, id LIMIT ?"


def horizon(snapshot: SqliteSnapshot) -> int:
    """See :meth:`fhir_server.store.Snapshot.history_horizon`."""
    found = snapshot.rows(_HORIZON, (HORIZON,))
    return int(found[0][0]) if found else 0


def with_past(snapshot: SqliteSnapshot, after: tuple[str, str], limit: int) -> tuple[tuple[str, str], ...]:
    """See :meth:`fhir_server.store.Snapshot.with_past_unfiltered`; in the order of the types' numbers."""
    names = snapshot.names
    number = names.number("type:" + after[0]) if after[0] else 0
    found = snapshot.rows(_WITH_PAST, (number, after[1], limit))
    return tuple([(names.text(type).removeprefix("type:"), id) for type, id in found])


def purge_versions(transaction: SqliteTransaction, type: str, id: str, before: int) -> int:
    """See :meth:`fhir_server.store.Transaction.purge_versions_unfiltered`."""
    connection, names = transaction.connection, transaction.names
    found: list[tuple[Any, ...]] = connection.execute(_VERSIONS, (names.number("type:" + type), id)).fetchall()
    if not found or found[0][3] >= before:
        return 0
    versions = [
        StoredVersion(
            version, updated, class_id, release_at, rows_.decode_patients(rid, extra, names),
            rows_.INTERACTIONS[interaction] == "delete", bool(loses), rows_.decode_stored(rid, extra),
        )
        for _, rid, version, updated, class_id, release_at, interaction, extra, loses in found
    ]  # fmt: skip
    purge = choose(versions, before)
    number = names.intern("type:" + type)
    if purge.numbers:
        connection.execute("PRAGMA secure_delete = ON").fetchall()  # overwrites what is deleted
        changes.remove_versions(transaction, number, id, purge.numbers)
    for n, rid, version, *_, extra, _ in found:
        if version in purge.numbers:
            connection.execute("DELETE FROM past WHERE n = ?", (n,))
        elif version in purge.stored:
            placed = rows_.with_stored(rid, extra, purge.stored[version])
            table, column, key = ("past", "n", n) if n else ("res", "rid", rid)
            connection.execute(f"UPDATE {table} SET extra = ? WHERE {column} = ?", (placed, key))
    if purge.numbers:
        changes.keep_purged(transaction, number, (type, id))
    return len(purge.numbers)
