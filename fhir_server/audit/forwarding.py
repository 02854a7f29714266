"""Forwards lines of the audit log to another system: as JSON or as syslog messages, from where an earlier run has stopped.

Where it has stopped is in a cursor file, which is written after the lines have been.  So no line is lost.  After an orderly stop none is
repeated; after a kill at most those of one portion are, and each says its number, by which a receiver drops it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import msgspec

from fhir_server.audit.chain import LOG_NAME
from fhir_server.durable import sync
from fhir_server.store import Store

Format = Literal["text", "json", "syslog", "syslog-octets"]
PORTION: Final = 200  # lines that are written before the cursor is
_FACILITY: Final = 13  # log audit (RFC 5424 6.2.1)
_SEVERITIES: Final = {"0": 6, "4": 4, "8": 3, "12": 2}  # by AuditEvent.outcome: informational, warning, error, critical
_MOST: Final = 2**31 - 1  # sequenceId (RFC 5424 7.3.1)


class Cursor(msgspec.Struct, frozen=True):
    """The last line that was written: its number, and its SHA-256."""

    number: int
    digest: str


class CursorFile:
    """The file at ``path``.  It is replaced as a whole, and durable when :meth:`save` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Cursor | None:
        """Return what is saved; None if nothing was.  Raises ValueError for a file with something else, OSError if it cannot be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Cursor)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError:
            raise ValueError(f"{self._path} is no cursor of the audit log.") from None

    def save(self, number: int, line: bytes) -> None:
        new = self._path.with_name(self._path.name + ".new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode(Cursor(number, _digest(line))))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        sync(self._path.absolute().parent)


async def require_same_log(store: Store, cursor: Cursor) -> None:
    """Raises ValueError if the log has another line with the cursor's number, or has not come so far: lines would be missed."""
    lines = await store.read_log(LOG_NAME, cursor.number - 1, 1)
    if lines and lines[0][0] == cursor.number and _digest(lines[0][1]) == cursor.digest:
        return
    if lines and lines[0][0] > cursor.number and await store.read_log(LOG_NAME, 0, 1) == lines:
        return  # the line was purged meanwhile, as all before it; that nobody else removed it, `audit verify` tells
    raise ValueError(
        f"The audit log has another line {cursor.number} than the one forwarded last, or none: the store was restored or replaced. "
        "Remove the cursor file to forward the whole log, or give --after."
    )


def formatter(sort: Format) -> Callable[[int, bytes], bytes]:
    """Return the function that makes the bytes to write of a line's number and text."""
    host = socket.gethostname() or "-"
    if sort == "text":
        return lambda number, line: b"%d\t%s\n" % (number, line)
    if sort == "json":
        return lambda number, line: b'{"number":%d,%s\n' % (number, line[1:])
    if sort == "syslog":
        return lambda number, line: _syslog(number, line, host) + b"\n"

    def octets(number: int, line: bytes) -> bytes:
        message = _syslog(number, line, host)
        return b"%d %s" % (len(message), message)

    return octets


def _syslog(number: int, line: bytes, host: str) -> bytes:
    """An RFC 5424 message with the AuditEvent as JSON."""
    event = msgspec.json.decode(line, type=dict[str, msgspec.Raw])["event"]
    said = msgspec.json.decode(event)
    priority = _FACILITY * 8 + _SEVERITIES.get(said.get("outcome", "0"), 4)
    kind = said.get("type", {}).get("code", "-")
    sequence = (number - 1) % _MOST + 1
    head = f'<{priority}>1 {said.get("recorded", "-")} {host} fhir-server - {kind} [meta sequenceId="{sequence}"] '
    return head.encode() + bytes(event)


def _digest(line: bytes) -> str:
    return sha256(line).hexdigest()
