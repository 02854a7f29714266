"""A file for audit lines that wait for the store, beside an SQLite store.

SQLite has one writer at a time, so while one client's long write runs, no line can be stored.  Lines that have waited for some
milliseconds are made durable here, and their responses leave.  The lines are stored when the write has ended; then the file is
emptied.  A server that is killed leaves its file, and the next one stores those lines that the log does not have.

Each record has a MAC with the key of the audit log, over the name of the file, so that nobody else can write one.  Whoever removes
the file of a server that was killed removes lines of the requests that were answered during its last long write.
"""

from __future__ import annotations

import fcntl
import hmac
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

import msgspec

from fhir_server.audit.chain import ChainKeys
from fhir_server.store import LogEntry

_INFIX: Final = "-audit-"
_log = logging.getLogger("fhir_server")


class _Record(msgspec.Struct, frozen=True):
    """``after`` is the number of the last line that the log had, ``mac`` that of all other members with the key named ``key``."""

    mac: str
    key: str
    number: int
    after: int
    text: str
    keys: tuple[str, ...]


_records = msgspec.json.Decoder(_Record)


class BufferFile:
    """The file of this process, which is made when it is needed.  ``store``: the file of the store."""

    def __init__(self, store: Path, keys: ChainKeys) -> None:
        self._store = store
        self._keys = keys
        self._path = store.with_name(f"{store.name}{_INFIX}{token_hex(8)}")
        self._file: int | None = None
        self._number = 0

    def add(self, entries: Sequence[LogEntry], after: int) -> None:
        """Write entries durably; ``after`` is the number of the last line that the log has.  Raises OSError."""
        records = [self._record(number, after, entry) for number, entry in enumerate(entries, self._number)]
        file = self._open()
        start = os.lseek(file, 0, os.SEEK_END)
        text = b"".join([record + b"\n" for record in records])
        try:
            if os.write(file, text) != len(text):
                raise OSError("the disk took a part of the lines only")
            os.fdatasync(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, start)  # the lines are not answered, and may be written again
            raise
        self._number += len(records)

    def clear(self) -> None:
        """Empty the file: the log has its lines."""
        if self._file is not None and self._number:
            os.ftruncate(self._file, 0)
            self._number = 0

    def close(self) -> None:
        """Remove the file if it is empty."""
        if self._file is not None:
            if not self._number:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        if self._file is None:
            file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _sync_folder(self._path.parent)  # the name of the file is durable too
            except OSError:
                os.close(file)
                self._path.unlink(missing_ok=True)
                raise
            self._file = file
        return self._file

    def _record(self, number: int, after: int, entry: LogEntry) -> bytes:
        record = _Record("", self._keys.name, number, after, entry.text.decode(), entry.keys)
        return msgspec.json.encode(msgspec.structs.replace(record, mac=_mac(self._keys, self._path, record)))


@dataclass(frozen=True, slots=True)
class Abandoned:
    """What a server left: its entries in order, and the number of the last line that the log had before them.

    ``damaged``: how many records were not written by a server with the secret key.
    """

    path: Path
    entries: tuple[LogEntry, ...]
    after: int
    damaged: int

    def remove(self) -> None:
        """Remove the file: the log has its lines."""
        if self.damaged:
            _log.error("%d lines of %s were not written by this server. They are not in the audit log.", self.damaged, self.path.name)
        self.path.unlink(missing_ok=True)


def abandoned_buffers(store: Path, keys: ChainKeys) -> Iterator[Abandoned]:
    """The files that servers left which are no longer running, one after the other; each is locked meanwhile."""
    for path in buffer_files(store):
        with suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its server is running
            if path.exists():  # otherwise another server has stored its lines
                yield read_buffer(path, keys)


def buffer_files(store: Path) -> list[Path]:
    """The files of running and of former servers beside the file of a store."""
    return sorted(path for path in store.parent.glob(f"{store.name}{_INFIX}*") if path.is_file())


def read_buffer(path: Path, keys: ChainKeys) -> Abandoned:
    """The entries in a file.  A last record without its end is ignored: nothing that it says was answered."""
    entries: list[LogEntry] = []
    first, damaged = 0, 0
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            record = _records.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            damaged += 1
            continue
        mac = _mac(keys, path, record)
        if not mac or record.number != len(entries) + damaged or not hmac.compare_digest(mac, record.mac):
            damaged += 1
            continue
        first = first if entries else record.after
        entries.append(LogEntry(record.text.encode(), record.keys))
    return Abandoned(path, tuple(entries), first, damaged)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _mac(keys: ChainKeys, path: Path, record: _Record) -> str:
    covered = msgspec.json.encode((path.name, record.number, record.after, record.text, record.keys))
    return keys.mac(record.key, b"buffered audit line\n" + covered) or ""
