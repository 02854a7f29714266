"""The tables of the SQLite store, and connections to them.

``res`` holds the current rows without their bodies.  Its ``rid`` is (patient number << 32 | when stored), so the
rows of one patient lie together and "belongs to the patient" is a range; ``also`` has the other patients of a row
of several.  ``past`` holds all other versions, each with the ``rid`` it had.  One index table for each kind of
entry: clustered by row (for sorting, for what is left of a condition, for deletion) with one index by value that
ends in the row, so that a value within a patient is one contiguous range.  References of a past version which the
current one has no more are under minus its ``n``, where only relabelling looks.  ``param``, ``type`` and
``system`` are numbers from ``name``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

VERSION: Final = 1
MAX_RID: Final = 2**63 - 1
PATIENT_BITS: Final = 32
SEQUENCE: Final = (1 << PATIENT_BITS) - 1  # the bits of a rid that say when the row was stored

_ROW = "version INTEGER, updated INTEGER, vclass INTEGER, release_at INTEGER, interaction INTEGER, extra BLOB"

_TABLES: Final = f"""
CREATE TABLE counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO counter VALUES ('security', 0), ('sequence', 0);
CREATE TABLE name(n INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE class(n INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE patient(n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, stamp INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE TABLE res(rid INTEGER PRIMARY KEY, type INTEGER, id TEXT, {_ROW}) STRICT;
CREATE UNIQUE INDEX res_id ON res(type, id);
CREATE INDEX res_scan ON res(type, rid, vclass, release_at);
CREATE TABLE body(rid INTEGER PRIMARY KEY, body BLOB, entries BLOB) STRICT;
CREATE TABLE also(patient INTEGER, rid INTEGER, PRIMARY KEY(patient, rid)) STRICT, WITHOUT ROWID;
CREATE INDEX also_rid ON also(rid);

CREATE TABLE past(n INTEGER PRIMARY KEY, rid INTEGER, type INTEGER, id TEXT, {_ROW}, body BLOB, entries BLOB) STRICT;
CREATE UNIQUE INDEX past_version ON past(type, id, version);

CREATE TABLE tok(rid INTEGER, param INTEGER, code TEXT, system INTEGER, vclass INTEGER,
  PRIMARY KEY(rid, param, code, system, vclass)) STRICT, WITHOUT ROWID;
CREATE INDEX tok_value ON tok(param, code, rid, system, vclass);
CREATE TABLE ref(rid INTEGER, param INTEGER, target TEXT, vclass INTEGER,
  PRIMARY KEY(rid, param, target, vclass)) STRICT, WITHOUT ROWID;
CREATE INDEX ref_value ON ref(target, param, rid, vclass);
CREATE TABLE str(rid INTEGER, param INTEGER, folded TEXT, exact TEXT, vclass INTEGER,
  PRIMARY KEY(rid, param, folded, exact, vclass)) STRICT, WITHOUT ROWID;
CREATE INDEX str_value ON str(param, folded, rid, exact, vclass);
CREATE TABLE dat(rid INTEGER, param INTEGER, hi INTEGER, lo INTEGER, vclass INTEGER,
  PRIMARY KEY(rid, param, hi, lo, vclass)) STRICT, WITHOUT ROWID;
CREATE INDEX dat_value ON dat(param, hi, rid, lo, vclass);
CREATE INDEX dat_lo ON dat(param, lo, rid, hi, vclass);
CREATE TABLE num(rid INTEGER, param INTEGER, number REAL, system INTEGER, code TEXT, unit TEXT, vclass INTEGER,
  PRIMARY KEY(rid, param, number, system, code, unit, vclass)) STRICT, WITHOUT ROWID;
CREATE INDEX num_value ON num(param, number, rid, system, code, unit, vclass);

CREATE TABLE secret(kind TEXT, key TEXT, value BLOB NOT NULL, expires INTEGER NOT NULL, family TEXT NOT NULL,
  PRIMARY KEY(kind, key)) STRICT, WITHOUT ROWID;
CREATE INDEX secret_family ON secret(family) WHERE family <> '';
CREATE INDEX secret_expires ON secret(expires);
CREATE TABLE journal(n INTEGER PRIMARY KEY AUTOINCREMENT, journal INTEGER NOT NULL, line BLOB NOT NULL) STRICT;
CREATE INDEX journal_lines ON journal(journal, n);
PRAGMA user_version = {VERSION};
"""

# wal_autocheckpoint 4000 keeps the longest commit near 25 ms; at 1000 that is 13 ms, and a create costs 7 % more.
_SETTINGS: Final = """
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 4000;
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -32768;
PRAGMA mmap_size = 17179869184;
"""

_READING: Final = "PRAGMA query_only = ON;"
_WRITING: Final = "PRAGMA temp_store = MEMORY;"  # of savepoints' journals, which else go to a file

_BUSY_MILLISECONDS: Final = 10_000
_STATEMENTS: Final = 512  # compiled statements kept on each connection


def prepare(path: Path) -> None:
    """Create the file and its tables if they are not there.

    Raises ValueError for a file that is no SQLite database or of a later version of this program, OSError if it cannot
    be opened.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder of the SQLite store does not exist: {path.parent}")
    path.touch(mode=0o600)  # what it holds is nobody else's; the log beside it takes the same mode
    connection = open_connection(path)
    try:
        if connection.execute("PRAGMA journal_mode = WAL").get != "wal":
            raise OSError(f"The file system of {path} does not support SQLite's write-ahead log.")
        with connection:
            version = connection.execute("PRAGMA user_version").get
            if version > VERSION:
                raise ValueError(f"{path} was written by a later version of this program (schema {version}, known: {VERSION}).")
            if version == 0:
                connection.execute(_TABLES).fetchall()
    finally:
        connection.close()


def open_connection(path: Path, *, reading: bool = False) -> apsw.Connection:
    """A connection to the file; ``reading`` ones cannot write.  Raises as ``prepare`` does."""
    try:
        connection = apsw.Connection(str(path), statementcachesize=_STATEMENTS)
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        connection.transaction_mode = "IMMEDIATE"
        connection.execute(_SETTINGS + (_READING if reading else _WRITING)).fetchall()
    except apsw.CantOpenError:
        raise OSError(f"The SQLite store cannot be opened: {path}") from None
    except apsw.NotADBError:
        raise ValueError(f"{path} is not an SQLite database.") from None
    return connection
