"""Removes what deleted rows have left in unused parts of a SQLite file."""

from __future__ import annotations

import apsw

from fhir_server.store.sqlite import SqliteStore
from fhir_server.store.sqlite.schema import open_connection


async def remove_remnants(store: SqliteStore) -> str:
    """Write the file anew and empty its write-ahead log.  Return what remains, as a sentence; "" if nothing does.

    Earlier versions that were replaced or deleted long ago may stand in pages that are not in use: only a new file is without them.
    """
    connection = open_connection(store.path)
    try:
        connection.execute("VACUUM").fetchall()
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0]
    except (apsw.BusyError, apsw.FullError) as error:
        return f"Unused pages of the file may hold erased content ({type(error).__name__}); run the command again while no server runs."
    finally:
        connection.close()
    return "The write-ahead log holds erased content until the servers are restarted." if busy else ""
