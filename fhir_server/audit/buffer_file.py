"""Files for audit lines that wait for the store, beside an SQLite store.

SQLite has one writer at a time, and a commit for each answered request is dear.  So a line is made durable here, its response leaves,
and the store receives the lines of some milliseconds in one commit.  Then their file is emptied.  A server that is killed leaves its
files, and the next one stores those lines that the log does not have.

A record is the lines that were written together, with a MAC of the key of the audit log over them and the name of the file, so that
nobody else can write one.  Whoever removes the files of a server that was killed removes lines of the requests that it answered in its
last moment, or during its last long write.
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
from fhir_server.durable import sync
from fhir_server.store import LogEntry

_INFIX: Final = "-audit-"
_log = logging.getLogger("fhir_server")


class _Buffered(msgspec.Struct, frozen=True, array_like=True):
    """An entry of the log: its JSON and its keys."""

    text: msgspec.Raw
    keys: tuple[str, ...]


class _Record(msgspec.Struct, frozen=True, array_like=True):
    """``after`` is the number of a line that the log had before these lines."""

    number: int
    after: int
    entries: list[_Buffered]


_records = msgspec.json.Decoder(_Record)


class BufferFile:
    """A file of this process, which is made when it is needed.  ``store``: the file of the store.

    ``unstored``  the lines in it that the log does not have, counted by the caller
    """

    def __init__(self, store: Path, keys: ChainKeys) -> None:
        self.unstored = 0
        self._keys = keys
        self._path = store.with_name(f"{store.name}{_INFIX}{token_hex(8)}")
        self._file: int | None = None
        self._number = 0

    def add(self, entries: Sequence[LogEntry], after: int) -> None:
        """Write entries durably; ``after`` is the number of a line that the log had before them.  Raises OSError."""
        record = self._record(_Record(self._number, after, [_Buffered(msgspec.Raw(entry.text), entry.keys) for entry in entries]))
        file = self._open()
        start = os.lseek(file, 0, os.SEEK_END)
        try:
            if os.write(file, record) != len(record):
                raise OSError("the disk took a part of the lines only")
            os.fdatasync(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, start)  # the lines are not answered, and may be written again
            raise
        self._number += 1

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
                sync(self._path.parent)  # the name of the file is durable too
            except OSError:
                os.close(file)
                self._path.unlink(missing_ok=True)
                raise
            self._file = file
        return self._file

    def _record(self, record: _Record) -> bytes:
        text = msgspec.json.encode(record)
        return b"%s %s %s\n" % (_mac(self._keys, self._keys.name, self._path, text).encode(), self._keys.name.encode(), text)


@dataclass(frozen=True, slots=True)
class Abandoned:
    """What a server left: its entries in order, and the number of a line that the log had before them.

    ``damaged``: how many records were not written by a server with the secret key.
    """

    path: Path
    entries: tuple[LogEntry, ...]
    after: int
    damaged: int

    def remove(self) -> None:
        """Remove the file: the log has its lines."""
        if self.damaged:
            _log.error("%d records of %s were not written by this server. They are not in the audit log.", self.damaged, self.path.name)
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
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1]):
        record = _read_record(line, path, keys)
        if record is None or record.number != number:
            damaged += 1
        else:
            first = first if entries else record.after
            entries += [LogEntry(bytes(entry.text), entry.keys) for entry in record.entries]
    return Abandoned(path, tuple(entries), first, damaged)


def _read_record(line: bytes, path: Path, keys: ChainKeys) -> _Record | None:
    """The record, if it was written to this file with one of the keys."""
    mac, _, rest = line.partition(b" ")
    key, _, text = rest.partition(b" ")
    known = _mac(keys, key.decode(errors="replace"), path, text)
    return _records.decode(text) if known and hmac.compare_digest(known.encode(), mac) else None


def _mac(keys: ChainKeys, key: str, path: Path, text: bytes) -> str:
    """The MAC of a record with the key of this name; empty if there is none."""
    return keys.mac(key, b"buffered audit lines\n%s\n%s" % (os.fsencode(path.name), text)) or ""
