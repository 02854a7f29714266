"""Backs up a SQLite file while other processes write to it, with SQLite's backup API.

The source is copied inside one reading transaction, so the copy is the store at the instant at which that began, and a write
by another process does not start it again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import apsw

from fhir_server.store.backup import Progress
from fhir_server.store.sqlite import SqliteStore, explain_failure, store_path
from fhir_server.store.sqlite.inspection import inspector
from fhir_server.store.sqlite.schema import open_connection

_PAGES: Final = 2000  # pages in one step
_COUNTS: Final = {"resources": "res", "earlier versions": "past", "records": "secret", "audit lines": "journal"}


async def write_backup(store: SqliteStore, path: Path, progress: Progress) -> dict[str, int]:
    """Copy the store to ``path``, an empty file, and verify the copy.  See :mod:`fhir_server.store.backup`."""
    source, target = open_connection(store.path, reading=True), apsw.Connection(str(path))
    try:
        source.execute("BEGIN")
        counts = _counts(source)
        with target.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(_PAGES)
                progress(backup.page_count - backup.remaining, backup.page_count)
    finally:
        source.close()
        target.close()
    await _verify(path, counts)
    return counts


async def restore_backup(path: Path, url: str) -> dict[str, int]:
    """Copy the backup to the place of the store, which must not exist.  See :mod:`fhir_server.store.backup`."""
    if path.open("rb").read(16) != b"SQLite format 3\0":
        raise ValueError(f"{path} is no backup of a SQLite store; restore it to a store of the kind that it comes from.")
    target = store_path(url)
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    try:
        shutil.copyfile(path, partial)
        counts = await _verify(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
    return counts


async def _verify(path: Path, expected: dict[str, int] | None = None) -> dict[str, int]:
    """Return the numbers of things in a copy.  Raises ValueError if it is damaged, of a later schema, or has other numbers."""
    examined = inspector(f"sqlite:///{path}")
    try:
        identity = await examined.identify()
        if identity.state != "present":
            raise ValueError(f"{path} is not a store of this program.")
        if identity.schema > identity.known_schema:
            raise ValueError(f"{path} was written by a later version of this program.")
        if damage := await examined.find_damage(thorough=True):
            raise ValueError(f"The copy is damaged: {damage[0]}")
    finally:
        await examined.close()
    connection = open_connection(path, reading=True, mode="mode=ro&immutable=1")
    try:
        found = _counts(connection)
    except apsw.Error as error:
        raise ValueError(explain_failure(error) or str(error)) from None
    finally:
        connection.close()
    if expected is not None and found != expected:
        raise ValueError(f"The copy holds {found}, the store held {expected}.")
    return found


def _counts(connection: apsw.Connection) -> dict[str, int]:
    return {name: int(connection.execute(f"SELECT count(*) FROM {table}").get) for name, table in _COUNTS.items()}
