"""SQLite files of earlier schemas: the tables as the program created them then, and rows with the histories they had then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from fhir_server.store import VersionDigest
from fhir_server.store.version_history import VersionHistory

# Tables and indexes of schema 1 that later ones changed.
_ROW = "version INTEGER, updated INTEGER, vclass INTEGER, release_at INTEGER, interaction INTEGER, extra BLOB"
_FIRST_SCHEMA = f"""
CREATE TABLE res(rid INTEGER PRIMARY KEY, type INTEGER, id TEXT, {_ROW}) STRICT;
CREATE UNIQUE INDEX res_id ON res(type, id);
CREATE INDEX res_scan ON res(type, rid, vclass, release_at);
CREATE TABLE also(patient INTEGER, rid INTEGER, PRIMARY KEY(patient, rid)) STRICT, WITHOUT ROWID;
CREATE INDEX also_rid ON also(rid);
CREATE TABLE tok(rid INTEGER, param INTEGER, code TEXT, system INTEGER, vclass INTEGER,
  PRIMARY KEY(rid, param, code, system, vclass)) STRICT, WITHOUT ROWID;
CREATE INDEX tok_value ON tok(param, code, rid, system, vclass);
CREATE TABLE ref(rid INTEGER, param INTEGER, target TEXT, vclass INTEGER,
  PRIMARY KEY(rid, param, target, vclass)) STRICT, WITHOUT ROWID;
CREATE INDEX ref_value ON ref(target, param, rid, vclass);
"""
CHANGED: Final = ("res", "also", "tok", "ref")


def former_digests(digests: Sequence[VersionDigest]) -> list[list[Any]]:
    """Digests as rows held them before schema 4: those of all versions.  The oldest form ended after the digests."""
    made = []
    for digest in digests:
        whole = [digest.version, digest.updated, digest.class_id, digest.release_at, digest.digests]
        rest = [[["pair", "text"]], digest.guarded_parts, digest.declassifies, digest.own_release_at]
        is_oldest = not (digest.guarded_parts or digest.declassifies or digest.own_release_at)
        made.append(whole if is_oldest and digest.version % 2 else [*whole, *rest])
    return made


def turn_into_sixth_schema(path: Path) -> None:
    """Without words and positions; a row's own list of its entries has none either."""
    connection = apsw.Connection(str(path))
    for table, key in (("body", "rid"), ("past", "n")):
        for rid, entries in connection.execute(f"SELECT {key}, entries FROM {table}").fetchall():
            former = msgspec.msgpack.encode(msgspec.msgpack.decode(entries)[:5])
            connection.execute(f"UPDATE {table} SET entries = ? WHERE {key} = ?", (former, rid))
    connection.execute("DROP TABLE txt; DROP TABLE geo; PRAGMA user_version = 6")
    connection.close()


def turn_into_fourth_schema(path: Path) -> None:
    """As schema 5, without the index of a patient's newest rows."""
    turn_into_fifth_schema(path)
    connection = apsw.Connection(str(path))
    connection.execute("DROP INDEX dat_newest; ALTER TABLE dat DROP COLUMN band; PRAGMA user_version = 4")
    connection.close()


def turn_into_fifth_schema(path: Path) -> None:
    """As schema 6, without the versions in the order of time, and without bands that only past versions have."""
    turn_into_sixth_schema(path)
    connection = apsw.Connection(str(path))
    connection.execute("DROP TABLE change; DROP TABLE purged; DELETE FROM band WHERE n NOT IN (SELECT band FROM res)")
    connection.execute("PRAGMA user_version = 5")
    connection.close()


def turn_into_third_schema(path: Path) -> None:
    """Give each version the digests of all versions before it."""
    turn_into_fourth_schema(path)
    connection = apsw.Connection(str(path))
    past, current = [f"SELECT type, id, version, '{table}', {key}, extra FROM {table}" for table, key in (("past", "n"), ("res", "rid"))]
    versions = f"{past} UNION ALL {current} ORDER BY 1, 2, 3"
    digests: list[VersionDigest] = []
    for _, _, version, table, key, extra in connection.execute(versions).fetchall():
        digests = digests if version > 1 else []
        if extra is not None:
            patients, elements, references, history, *stored = msgspec.msgpack.decode(extra)
            if history is not None:
                known = msgspec.convert(history, VersionHistory)
                if version == 2 and not digests and known.earlier is not None:
                    digests.append(known.earlier.latest[0][1].digest)  # a first version had none of its own
                digests.append(known.digest)
            former = [patients, elements, references, former_digests(digests) if history is not None else [], *stored]
            column = {"res": "rid", "past": "n"}[table]
            connection.execute(f"UPDATE {table} SET extra = ? WHERE {column} = ?", (msgspec.msgpack.encode(former), key))
    connection.execute("PRAGMA user_version = 3")
    connection.close()


def turn_into_second_schema(path: Path) -> None:
    """As schema 3, without the indexes of rows without a band."""
    turn_into_third_schema(path)
    connection = apsw.Connection(str(path))
    connection.execute("DROP INDEX tok_rows; DROP INDEX ref_rows; PRAGMA user_version = 2")
    connection.close()


def turn_into_first_schema(path: Path) -> None:
    """As schema 2, without bands."""
    turn_into_second_schema(path)
    connection = apsw.Connection(str(path))
    for table in CHANGED:
        connection.execute(f"ALTER TABLE {table} RENAME TO new_{table}")
    names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name LIKE 'new!_%' ESCAPE '!'"
    for (name,) in connection.execute(names).fetchall():
        connection.execute(f"DROP INDEX {name}")
    connection.execute(_FIRST_SCHEMA)
    for table in CHANGED:
        columns = ", ".join(name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall())
        connection.execute(f"INSERT INTO {table}({columns}) SELECT {columns} FROM new_{table}")
        connection.execute(f"DROP TABLE new_{table}")
    connection.execute("DROP TABLE band; PRAGMA user_version = 1")
    connection.close()


EARLIER: Final = {
    1: turn_into_first_schema,
    2: turn_into_second_schema,
    3: turn_into_third_schema,
    4: turn_into_fourth_schema,
    5: turn_into_fifth_schema,
    6: turn_into_sixth_schema,
}
"""By schema: what turns a new file into one of that schema."""
