"""The steps that convert an SQLite file of an earlier schema, one for each schema, with its tables as they were then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import apsw
import msgspec

from fhir_server.store.former_histories import FormerDigest, converted
from fhir_server.store.version_history import VersionHistory

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
    stored: int


_decode = msgspec.msgpack.Decoder(_FormerExtra).decode
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


STEPS: Final[dict[int, Callable[[apsw.Connection], None]]] = {
    2: _add_bands, 3: _add_row_indexes, 4: _summarize_histories, 5: _add_newest, 6: _add_words_and_positions,
}  # fmt: skip
"""By schema: what turns a file of the schema before it into one of this schema."""
