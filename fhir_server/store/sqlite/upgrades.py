"""The steps that convert an SQLite file of an earlier schema, one for each schema, with its tables as they were then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import apsw
import msgspec

from fhir_server.store.changes import purged_beginnings
from fhir_server.store.former_histories import FormerDigest, converted
from fhir_server.store.version_history import HORIZON, VersionHistory

# What schema 2 added.
_BANDS: Final = """
CREATE TABLE band(n INTEGER PRIMARY KEY, type INTEGER NOT NULL, vclass INTEGER NOT NULL, held INTEGER NOT NULL,
  UNIQUE(type, vclass, held)) STRICT;
CREATE INDEX res_scan ON res(band, rid, vclass, release_at);
CREATE INDEX res_type ON res(type, rid, vclass, release_at);
CREATE INDEX res_held ON res(rid >> 32, band, release_at) WHERE release_at > updated;
CREATE TABLE also(patient INTEGER, band INTEGER, rid INTEGER, PRIMARY KEY(patient, band, rid)) STRICT, WITHOUT ROWID;
CREATE INDEX also_rid ON also(rid);
CREATE INDEX tok_value ON tok(param, code, band, rid, system, vclass);
CREATE INDEX ref_value ON ref(target, param, band, rid, vclass);
"""

_TO_BANDS: Final = f"""
DROP INDEX res_scan;
DROP INDEX tok_value;
DROP INDEX ref_value;
DROP INDEX also_rid;
ALTER TABLE also RENAME TO former_also;
ALTER TABLE res ADD COLUMN band INTEGER;
ALTER TABLE tok ADD COLUMN band INTEGER;
ALTER TABLE ref ADD COLUMN band INTEGER;
{_BANDS}
INSERT INTO band(type, vclass, held) SELECT DISTINCT type, vclass, release_at > updated FROM res;
UPDATE res SET band = (SELECT n FROM band b WHERE b.type = res.type AND b.vclass = res.vclass AND b.held = (release_at > updated));
INSERT INTO also SELECT a.patient, r.band, a.rid FROM former_also a, res r WHERE r.rid = a.rid;
DROP TABLE former_also;
UPDATE tok SET band = (SELECT r.band FROM res r WHERE r.rid = tok.rid);
UPDATE ref SET band = (SELECT r.band FROM res r WHERE r.rid = ref.rid) WHERE rid >= 0;
"""

# What schema 3 added.
_ROWS: Final = """
CREATE INDEX tok_rows ON tok(param, code, rid, system, vclass);
CREATE INDEX ref_rows ON ref(target, param, rid, vclass);
"""

# What schema 5 added.
_NEWEST: Final = """
ALTER TABLE dat ADD COLUMN band INTEGER;
UPDATE dat SET band = (SELECT r.band FROM res r WHERE r.rid = dat.rid);
CREATE INDEX dat_newest ON dat(param, rid >> 32, band, hi DESC, rid, vclass);
"""

# What schema 6 added.
_CHANGES: Final = """
CREATE TABLE change(owner INTEGER, band INTEGER, updated INTEGER, id TEXT, version INTEGER, release_at INTEGER NOT NULL,
  PRIMARY KEY(owner, band, updated, id, version)) STRICT, WITHOUT ROWID;
CREATE TABLE purged(owner INTEGER, type INTEGER, updated INTEGER, id TEXT, version INTEGER,
  PRIMARY KEY(owner, type, updated, id, version)) STRICT, WITHOUT ROWID;
CREATE INDEX purged_name ON purged(type, id);
INSERT OR IGNORE INTO band(type, vclass, held) SELECT DISTINCT type, vclass, release_at > updated FROM past;
INSERT INTO change SELECT 0, b.n, v.updated, v.id, v.version, v.release_at
  FROM (SELECT * FROM (SELECT type, id, version, updated, vclass, release_at FROM res UNION ALL
    SELECT type, id, version, updated, vclass, release_at FROM past)) v, band b
  WHERE b.type = v.type AND b.vclass = v.vclass AND b.held = (v.release_at > v.updated);
INSERT INTO change SELECT v.rid >> 32, b.n, v.updated, v.id, v.version, v.release_at
  FROM (SELECT * FROM (SELECT rid, type, id, version, updated, vclass, release_at FROM res UNION ALL
    SELECT rid, type, id, version, updated, vclass, release_at FROM past)) v, band b
  WHERE v.rid >> 32 > 0 AND b.type = v.type AND b.vclass = v.vclass AND b.held = (v.release_at > v.updated);
"""
_OF_PATIENT: Final = (
    "INSERT OR IGNORE INTO change SELECT (SELECT n FROM patient WHERE id = ?), n, ?5, ?6, ?7, ?8 FROM band"
    " WHERE type = ?2 AND vclass = ?3 AND held = ?4"
)
_NUMBERS: Final = "SELECT version FROM past WHERE type = ?1 AND id = ?2 UNION SELECT version FROM res WHERE type = ?1 AND id = ?2"

# What schema 7 added.
_WORDS_AND_POSITIONS: Final = """
CREATE TABLE txt(rid INTEGER, param INTEGER, words TEXT, vclass INTEGER, PRIMARY KEY(rid, param, words, vclass)) STRICT, WITHOUT ROWID;
CREATE TABLE geo(rid INTEGER, param INTEGER, z REAL, x REAL, y REAL, vclass INTEGER,
  PRIMARY KEY(rid, param, z, x, y, vclass)) STRICT, WITHOUT ROWID;
CREATE INDEX geo_value ON geo(param, z, rid, x, y, vclass);
"""

_CURRENT: Final = "SELECT 'res', rid, version, extra FROM res WHERE type = ?1 AND id = ?2"
_VERSIONS: Final = f"SELECT 'past', n, version, extra FROM past WHERE type = ?1 AND id = ?2 UNION ALL {_CURRENT} ORDER BY version"
_WITH_HISTORY: Final = "SELECT type, id FROM res WHERE extra IS NOT NULL UNION SELECT type, id FROM past"
_UPDATES: Final = {"res": "UPDATE res SET extra = ? WHERE rid = ?", "past": "UPDATE past SET extra = ? WHERE n = ?"}


class _FormerExtra(msgspec.Struct, array_like=True):
    """The ``extra`` column before schema 4; ``version_digests`` of all versions up to this one."""

    patients: tuple[str, ...] | None
    labeled_elements: msgspec.Raw
    guarded_references: msgspec.Raw
    version_digests: tuple[FormerDigest, ...]
    stored: int = 0


class _Extra(msgspec.Struct, array_like=True):
    """The ``extra`` column since schema 4."""

    patients: tuple[str, ...] | None
    labeled_elements: msgspec.Raw
    guarded_references: msgspec.Raw
    history: VersionHistory | None
    stored: int = 0


class _Patients(msgspec.Struct, array_like=True):
    """The first member of the ``extra`` column."""

    patients: tuple[str, ...] | None


_decode = msgspec.msgpack.Decoder(_FormerExtra).decode
_decode_current = msgspec.msgpack.Decoder(_Extra).decode
_decode_patients = msgspec.msgpack.Decoder(_Patients).decode
_encode = msgspec.msgpack.Encoder().encode


def _add_bands(connection: apsw.Connection) -> None:
    connection.execute(_TO_BANDS).fetchall()


def _add_row_indexes(connection: apsw.Connection) -> None:
    connection.execute(_ROWS).fetchall()


def _add_newest(connection: apsw.Connection) -> None:
    connection.execute(_NEWEST).fetchall()


def _add_words_and_positions(connection: apsw.Connection) -> None:
    """Tables for words and positions; relabeling stores those of the rows."""
    connection.execute(_WORDS_AND_POSITIONS).fetchall()


def _summarize_histories(connection: apsw.Connection) -> None:
    """Each version has its own digest and a summary of those before it."""
    for key in connection.execute(_WITH_HISTORY).fetchall():
        _summarize(connection, connection.execute(_VERSIONS, key).fetchall())


def _summarize(connection: apsw.Connection, versions: Sequence[tuple[Any, ...]]) -> None:
    extras = {version: _decode(extra) for *_, version, extra in versions if extra is not None}
    newest = extras.get(versions[-1][2])
    if newest is None:
        return
    histories = converted(newest.version_digests)
    for table, key, version, extra in versions:
        if extra is not None:
            former = extras[version]
            history = histories.get(version) if former.version_digests else None
            new = _Extra(former.patients, former.labeled_elements, former.guarded_references, history, former.stored)
            connection.execute(_UPDATES[table], (_encode(new), key))


def _add_changes(connection: apsw.Connection) -> None:
    """Versions are also found in the order of time."""
    connection.execute(_CHANGES).fetchall()
    horizon = connection.execute("SELECT 1 FROM secret WHERE kind = ? AND key = ''", (HORIZON,)).get
    current: list[tuple[Any, ...]] = connection.execute("SELECT type, id, rid, extra FROM res WHERE extra IS NOT NULL").fetchall()
    for type, id, rid, extra in current:
        more = _decode_current(extra)
        others = [connection.execute("SELECT n FROM patient WHERE id = ?", (patient,)).get for patient in (more.patients or ())]
        if horizon and more.history is not None:
            numbers: list[tuple[Any, ...]] = connection.execute(_NUMBERS, (type, id)).fetchall()
            stored = {version for (version,) in numbers}
            beginnings = purged_beginnings(more.history, stored)
            keys = [(owner, type, updated, id, n) for owner in {0, rid >> 32, *others} for n, updated in beginnings.items()]
            connection.executemany("INSERT OR IGNORE INTO purged VALUES (?, ?, ?, ?, ?)", keys)
    for table in ("res", "past"):
        sql = f"SELECT type, vclass, release_at, updated, id, version, extra FROM {table} WHERE extra IS NOT NULL"
        several: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
        for type, vclass, release_at, updated, id, version, extra in several:
            for patient in _decode_patients(extra).patients or ():
                connection.execute(_OF_PATIENT, (patient, type, vclass, release_at > updated, updated, id, version, release_at))


STEPS: Final[dict[int, Callable[[apsw.Connection], None]]] = {
    2: _add_bands, 3: _add_row_indexes, 4: _summarize_histories, 5: _add_newest, 6: _add_changes,
    7: _add_words_and_positions,
}  # fmt: skip
"""By schema: what turns a file of the schema before it into one of this schema."""
