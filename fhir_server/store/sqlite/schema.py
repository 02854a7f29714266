"""The tables of the SQLite store, and connections to them.

- ``res``: the current rows without their bodies.  ``rid`` is (patient number << 32 | sequence number), so the rows of
  one patient are contiguous, and "belongs to the patient" is a range of ``rid``.
- ``band``: the numbers of the (type, visibility class, whether the release was in the future when it was written) of rows.
  Rows, tokens and references are indexed by band before row, so that a search reads the bands that the caller is admitted
  to and passes over all others in one step, however many rows they hold.
- ``also``: the other patients of a row that has several.
- ``past``: all other versions, each with the ``rid`` it had.
- ``change``, ``purged``: the versions of all rows by patient and band in the order of time (``changes.py``).
- ``tok``, ``ref``, ``str``, ``dat``, ``num``, ``geo``: one index table for each other kind of entry.  Each is clustered by row (for
  sorting, for further conditions, for deletion).  Its index by value ends in ``rid``, so the rows of one patient (and, of
  ``tok`` and ``ref``, of one band) with one value are contiguous.  ``tok_rows`` and ``ref_rows`` have no band: callers who see all
  bands of a type read the rows with one value from them in the order of rows.  ``dat_newest`` has the rows of one patient in
  one band by date, the newest first.
- ``txt`` holds the words of each row, and has no index by value: words are looked for in rows that other conditions leave.
- ``ref`` also holds references of past versions that the current version no longer has, with minus the ``n`` of the
  past version as ``rid``.  Only relabeling reads them.

``param``, ``type`` and ``system`` are numbers from ``name``.
"""

from __future__ import annotations

from pathlib import Path
from time import sleep
from typing import Final
from urllib.parse import quote

import apsw

from fhir_server.store.sqlite.upgrades import STEPS

VERSION: Final = 7  # a step of ``upgrades.STEPS`` leads to each
MAX_RID: Final = 2**63 - 1
PATIENT_BITS: Final = 32
SEQUENCE: Final = (1 << PATIENT_BITS) - 1  # the bits of a rid that hold the sequence number

_ROW = "version INTEGER, updated INTEGER, vclass INTEGER, release_at INTEGER, interaction INTEGER, extra BLOB"

# Since schema 2.  ``res_held`` holds the rows of held bands alone; ``res_type`` is for callers who see all bands.
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

# What schema 3 added.
_ROWS: Final = """
CREATE INDEX tok_rows ON tok(param, code, rid, system, vclass);
CREATE INDEX ref_rows ON ref(target, param, rid, vclass);
"""

# What schema 5 added, beside the column ``band`` of ``dat``.
_NEWEST: Final = """
CREATE INDEX dat_newest ON dat(param, rid >> 32, band, hi DESC, rid, vclass);
"""

# Since schema 6; see ``changes.py``.
_CHANGES: Final = """
CREATE TABLE change(owner INTEGER, band INTEGER, updated INTEGER, id TEXT, version INTEGER, release_at INTEGER NOT NULL,
  PRIMARY KEY(owner, band, updated, id, version)) STRICT, WITHOUT ROWID;
CREATE TABLE purged(owner INTEGER, type INTEGER, updated INTEGER, id TEXT, version INTEGER,
  PRIMARY KEY(owner, type, updated, id, version)) STRICT, WITHOUT ROWID;
CREATE INDEX purged_name ON purged(type, id);
"""

# What schema 7 added.
_WORDS_AND_POSITIONS: Final = """
CREATE TABLE txt(rid INTEGER, param INTEGER, words TEXT, vclass INTEGER, PRIMARY KEY(rid, param, words, vclass)) STRICT, WITHOUT ROWID;
CREATE TABLE geo(rid INTEGER, param INTEGER, z REAL, x REAL, y REAL, vclass INTEGER,
  PRIMARY KEY(rid, param, z, x, y, vclass)) STRICT, WITHOUT ROWID;
CREATE INDEX geo_value ON geo(param, z, rid, x, y, vclass);
"""

_TABLES: Final = f"""
CREATE TABLE counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO counter VALUES ('security', 0), ('sequence', 0);
CREATE TABLE name(n INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE class(n INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE patient(n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, stamp INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE TABLE res(rid INTEGER PRIMARY KEY, type INTEGER, id TEXT, {_ROW}, band INTEGER) STRICT;
CREATE UNIQUE INDEX res_id ON res(type, id);
CREATE TABLE body(rid INTEGER PRIMARY KEY, body BLOB, entries BLOB) STRICT;

CREATE TABLE past(n INTEGER PRIMARY KEY, rid INTEGER, type INTEGER, id TEXT, {_ROW}, body BLOB, entries BLOB) STRICT;
CREATE UNIQUE INDEX past_version ON past(type, id, version);

CREATE TABLE tok(rid INTEGER, param INTEGER, code TEXT, system INTEGER, vclass INTEGER, band INTEGER,
  PRIMARY KEY(rid, param, code, system, vclass)) STRICT, WITHOUT ROWID;
CREATE TABLE ref(rid INTEGER, param INTEGER, target TEXT, vclass INTEGER, band INTEGER,
  PRIMARY KEY(rid, param, target, vclass)) STRICT, WITHOUT ROWID;
CREATE TABLE str(rid INTEGER, param INTEGER, folded TEXT, exact TEXT, vclass INTEGER,
  PRIMARY KEY(rid, param, folded, exact, vclass)) STRICT, WITHOUT ROWID;
CREATE INDEX str_value ON str(param, folded, rid, exact, vclass);
CREATE TABLE dat(rid INTEGER, param INTEGER, hi INTEGER, lo INTEGER, vclass INTEGER, band INTEGER,
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
{_BANDS}
{_ROWS}
{_NEWEST}
{_CHANGES}
{_WORDS_AND_POSITIONS}
PRAGMA user_version = {VERSION};
"""

# The keys by which lines of a log are found.  Lines of earlier versions of this program have none, so no step converts them.
_LOG_KEYS: Final = (
    "CREATE TABLE IF NOT EXISTS log_key(journal INTEGER, key TEXT, n INTEGER, PRIMARY KEY(journal, key, n)) STRICT, WITHOUT ROWID"
)

# With wal_autocheckpoint 4000 the longest commit takes about 25 ms; with 1000 it takes 13 ms, but a create costs 7% more.
_SETTINGS: Final = """
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 4000;
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -32768;
PRAGMA mmap_size = 17179869184;
"""

_READING: Final = "PRAGMA query_only = ON;"
_WRITING: Final = "PRAGMA temp_store = MEMORY;"  # for the journals of savepoints, which otherwise go to a file

# How long to wait for the write lock of another process, and how often to try.  SQLite's own handler soon tries only every
# 100 ms, and misses the short pauses between the commits of a process that writes without end.
_BUSY_SECONDS: Final = 10
_BUSY_STEP_SECONDS: Final = 0.002
_STATEMENTS: Final = 512  # compiled statements that each connection caches


def prepare(path: Path) -> None:
    """Create the file and its tables if they do not exist; convert a file of an earlier schema, in one transaction.

    Raises ValueError for a file that is not an SQLite database or that a later version of this program wrote, OSError if
    it cannot be opened.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder of the SQLite store does not exist: {path.parent}")
    path.touch(mode=0o600)  # only for this user; SQLite gives its write-ahead log the same mode
    connection = open_connection(path)
    try:
        if connection.execute("PRAGMA journal_mode = WAL").get != "wal":
            raise OSError(f"The file system of {path} does not support SQLite's write-ahead log.")
        # A store in use by a server is opened without the write lock, for which another process may have to wait long.
        if not _is_current(connection):
            with connection:
                _create_or_convert(connection, path)
    finally:
        connection.close()


def _is_current(connection: apsw.Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'log_key'").get
    return bool(tables and connection.execute("PRAGMA user_version").get == VERSION)


def _create_or_convert(connection: apsw.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").get
    if version > VERSION:
        raise ValueError(f"{path} was written by a later version of this program (schema {version}, known: {VERSION}).")
    if version == 0:
        connection.execute(_TABLES).fetchall()
    for schema in range(version + 1, VERSION + 1) if version else ():
        STEPS[schema](connection)
        connection.execute(f"PRAGMA user_version = {schema}")
    connection.execute(_LOG_KEYS)


def open_connection(path: Path, *, reading: bool = False, mode: str = "") -> apsw.Connection:
    """Open a connection to the file; with ``reading`` it cannot write.  Raises the same errors as ``prepare``.

    ``mode`` has parameters of SQLite's URI: ``mode=ro`` opens an existing file and creates nothing.
    """
    name, flags = str(path), apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    if mode:
        name, flags = f"file:{quote(str(path.absolute()))}?{mode}", apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    try:
        connection = apsw.Connection(name, flags=flags, statementcachesize=_STATEMENTS)
        connection.set_busy_handler(_wait_for_lock)
        connection.transaction_mode = "IMMEDIATE"
        connection.execute(_SETTINGS + (_READING if reading else _WRITING)).fetchall()
    except apsw.CantOpenError:
        raise OSError(f"The SQLite store cannot be opened: {path}") from None
    except apsw.NotADBError:
        raise ValueError(f"{path} is not an SQLite database.") from None
    return connection


def _wait_for_lock(attempts: int) -> bool:
    """Wait a moment for another connection's lock; return False when that has been tried for long enough."""
    sleep(_BUSY_STEP_SECONDS)
    return attempts < _BUSY_SECONDS / _BUSY_STEP_SECONDS
