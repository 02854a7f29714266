"""Reads single lines of the audit log."""

from __future__ import annotations

from fhir_server.audit.chain import LOG_NAME, Line, parse_line
from fhir_server.audit.entries import PURGES
from fhir_server.store import Store


async def last_number(store: Store) -> int:
    """The number of the last line of the log; 0 if it has none."""
    async with store.snapshot() as snapshot:
        lines = await snapshot.log_lines_unfiltered(LOG_NAME, None, before=None, limit=1)
    return lines[0][0] if lines else 0


async def newest_purge(store: Store) -> Line | None:
    """The newest line about a purge; None if nothing was purged.  It is to be believed if the whole log verifies with it."""
    async with store.snapshot() as snapshot:
        found = await snapshot.log_lines_unfiltered(LOG_NAME, PURGES, before=None, limit=1)
    line = parse_line(found[0][1]) if found else None
    return line if line is not None and line.purged is not None else None
