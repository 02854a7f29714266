"""Backups of a whole store in one file, written while servers read and write it, and verified.

The module ``<scheme>.backup`` of a store has :class:`Backups`'s two functions.  A backup holds what the store holds, byte for
byte: versions, labels, accounts, tokens, encrypted secrets and the audit log, all as they were at one instant.

Beside the file ``x`` lies ``x.sha256`` with its digest, in the form that ``sha256sum -c`` reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import file_digest
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from fhir_server.durable import sync
from fhir_server.store import Store

Progress = Callable[[int, int], None]  # (done, total) in units of the store


class Backups(NamedTuple):
    """``write(store, path, progress)`` makes a backup in a new file and verifies it; ``restore(path, url)`` fills a store from it.

    Both return the numbers of things in it, by kind, and raise ValueError or OSError with a message for the operator.
    """

    write: Callable[..., Any]
    restore: Callable[..., Any]


def backups_of(url: str) -> Backups:
    """Return the backup functions of the store at ``url``.  Raises ValueError for a kind of store that has none."""
    scheme = url.partition(":")[0].partition("+")[0]
    try:
        module = import_module(f"fhir_server.store.{scheme}.backup")
    except ModuleNotFoundError:
        raise ValueError(f"A store of {scheme!r} cannot be backed up.") from None
    return Backups(module.write_backup, module.restore_backup)


async def write_backup(url: str, store: Store, path: Path, progress: Progress) -> dict[str, int]:
    """Back up ``store``, which is open at ``url``, to the new file ``path`` and write its digest beside it.

    The file appears under its name when it is complete and verified.  Returns the numbers of things in it.
    Raises FileExistsError if ``path`` exists.
    """
    if path.exists() or _digest_path(path).exists():
        raise FileExistsError(f"{path} exists already; a backup does not replace another one.")
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        counts: dict[str, int] = await backups_of(url).write(store, partial, progress)
        sync(partial)
        digest = _digest(partial)
        os.close(os.open(_digest_path(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _digest_path(path).write_text(f"{digest}  {path.name}\n", encoding="utf-8")
        sync(_digest_path(path))
        partial.rename(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
    return counts


async def restore_backup(path: Path, url: str) -> dict[str, int]:
    """Fill the store at ``url``, which must not exist yet, from the backup ``path``.  Returns the numbers of things in it.

    Raises ValueError, with a message for the operator, if the file is not as it was written.
    """
    try:
        expected = _digest_path(path).read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        raise ValueError(f"The digest of the backup cannot be read: {_digest_path(path)}. It is written beside the backup.") from None
    if _digest(path) != expected:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one in {_digest_path(path).name}.")
    counts: dict[str, int] = await backups_of(url).restore(path, url)
    return counts


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
