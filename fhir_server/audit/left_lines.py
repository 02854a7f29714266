"""Which lines of a server that was killed are still to be stored: it may have stored them before."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final

from fhir_server.audit.chain import LOG_NAME, entry_text
from fhir_server.audit.entries import recorded_at
from fhir_server.audit.reading import newest_purge
from fhir_server.clock import parsed_instant
from fhir_server.store import LogEntry, Store

_log = logging.getLogger("fhir_server")
_PAGE: Final = 1000


async def unstored(store: Store, entries: Sequence[LogEntry], after: int) -> list[LogEntry]:
    """Those of these entries that the log does not have.  ``after``: the number of the last line that it had before them.

    If lines after that number were purged, it is not known whether entries from before the instant of the purge were among them.  They
    are left out: the purge removed all lines from before that instant, and must not bring any of them back.
    """
    stored: Counter[bytes] = Counter()
    number = after
    while lines := await store.read_log(LOG_NAME, number, _PAGE):
        stored.update(entry_text(line) for _, line in lines)
        number = lines[-1][0]
    unstored = []
    for entry in entries:
        if stored[entry.text[1:]]:
            stored[entry.text[1:]] -= 1
        else:
            unstored.append(entry)
    purge = await newest_purge(store)  # after the lines were read, so that none was purged meanwhile
    if purge is None or purge.purged is None or purge.purged.through <= after:
        return unstored
    before = parsed_instant(purge.purged.before)
    kept = [entry for entry in unstored if (at := recorded_at(entry.text)) is None or at >= before]
    if len(kept) < len(unstored):
        _log.warning("%d audit lines of a killed server are from before the last purge, and are left out.", len(unstored) - len(kept))
    return kept
