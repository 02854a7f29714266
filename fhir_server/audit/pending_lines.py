"""Lines of writes that are stored with their writes, and are not in the chain yet.

A store whose writers would wait for each other at the head of the chain keeps the line of a write in a pending record, which is stored
in the write's own transaction.  The process appends the line afterwards, in a transaction that removes the record.  If it is killed
before, another process does so: each line is appended once.

Each record has a MAC with the key of the audit log, over its id, so that nobody else can write one.  A record that was removed and is
put back is recognized: the log has its line.  A process appends the lines of its own writes also if their records were removed.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Final, NamedTuple

import msgspec

from fhir_server.audit.chain import LOG_NAME, ChainKeys
from fhir_server.audit.left_lines import unstored
from fhir_server.audit.reading import last_number
from fhir_server.store import LogEntry, Store

_log = logging.getLogger("fhir_server")
_PAGE: Final = 500
_GROUP: Final = 1000  # lines in one commit
_LOOK_SECONDS: Final = 30
_DIGITS: Final = 12  # of a number of a line at the beginning of an id


class _Record(msgspec.Struct, frozen=True):
    """``mac``: of the id and all other members with the key named ``key``."""

    mac: str
    key: str
    text: str
    keys: tuple[str, ...]


_records = msgspec.json.Decoder(_Record)


class PendingLine(NamedTuple):
    """A pending record and its entry (None: no known key fits)."""

    id: str
    entry: LogEntry | None


class PendingLines:
    """The pending records of one store, for the AuditLog of a process.  ``append`` appends entries to the chain."""

    def __init__(self, store: Store, keys: ChainKeys, append: Callable[[list[LogEntry]], Awaitable[None]]) -> None:
        self._store = store
        self._keys = keys
        self._append = append
        self._known_number = 0  # of a line that the log has

    def seal(self, entry: LogEntry) -> tuple[str, bytes]:
        """A new id and the content of the pending record of an entry.

        The id begins with the number of a line that the log has, so that the line of the entry can only be after it.
        """
        id = f"{self._known_number:0{_DIGITS}x}{os.urandom(12).hex()}"
        record = _Record("", self._keys.name, entry.text.decode(), entry.keys)
        return id, msgspec.json.encode(msgspec.structs.replace(record, mac=_mac(self._keys, id, record)))

    async def append(self, among: Collection[str] | None = None) -> frozenset[str]:
        """Append the lines of writes whose processes have not done so: of pending records ``among`` these (None: all).

        Returns the ids of all pending records that there were.  One without a known key stays: another process may have its key, or
        somebody without it has written it.
        """
        lines = [line async for line in read_pending(self._store, self._keys)]
        chosen = [line for line in lines if among is None or line.id in among]
        if among is None and (foreign := sum(line.entry is None for line in lines)):
            _log.error("%d pending audit lines in the store were not written with this server's secret key.", foreign)
        entries = await self._unstored([line for line in chosen if line.entry is not None])
        for start in range(0, len(entries), _GROUP):
            await self._append(entries[start : start + _GROUP])
        self._known_number = await last_number(self._store)
        return frozenset([line.id for line in lines])

    async def keep_appending(self) -> None:
        """Append the lines of killed processes, as long as this one runs: those whose records are there at two looks."""
        seen: frozenset[str] = frozenset()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                seen = await self.append(seen)
            except Exception:
                _log.exception("Audit lines of killed processes could not be appended; the server will try again.")

    async def removed(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        """Those of these entries of this process that nobody has appended, though their records are gone.  They are not pending now."""
        lost = await unstored(self._store, entries, _number_before(entries))
        if lost:
            _log.error("%d pending audit lines were removed by something else than this program. They are appended now.", len(lost))
        return [entry._replace(pending="") for entry in lost]

    async def _unstored(self, lines: list[PendingLine]) -> list[LogEntry]:
        """The entries that the log does not have.  The other records, which somebody put back, are removed."""
        if not lines:
            return []
        entries = [line.entry for line in lines if line.entry is not None]
        found = await unstored(self._store, entries, _number_before(entries))
        if repeated := {line.id for line in lines} - {entry.pending for entry in found}:
            repeated &= {line.id async for line in read_pending(self._store, self._keys)}  # the others were appended meanwhile
        if repeated:
            _log.error("%d audit lines that the log had, or that a purge removed, were put back. They are left out.", len(repeated))
            await self._store.discard_pending(LOG_NAME, repeated)
        return found


async def read_pending(store: Store, keys: ChainKeys) -> AsyncIterator[PendingLine]:
    """All pending records of the audit log."""
    after = ""
    while page := await store.pending_entries(LOG_NAME, after, _PAGE):
        for id, content in page:
            yield _read(keys, id, content)
        after = page[-1][0]


def _read(keys: ChainKeys, id: str, content: bytes) -> PendingLine:
    try:
        record = _records.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return PendingLine(id, None)
    mac = _mac(keys, id, record)
    if not mac or not hmac.compare_digest(mac, record.mac):
        return PendingLine(id, None)
    return PendingLine(id, LogEntry(record.text.encode(), record.keys, id))


def _number_before(entries: Sequence[LogEntry]) -> int:
    """The number of a line before all lines of these pending entries."""
    return min(int(entry.pending[:_DIGITS], 16) for entry in entries)


def _mac(keys: ChainKeys, id: str, record: _Record) -> str:
    covered = msgspec.json.encode((id, record.text, record.keys))
    return keys.mac(record.key, b"pending audit line\n" + covered) or ""
