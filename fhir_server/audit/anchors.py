"""Anchors: heads of the audit chain in a file outside the store.

Each line of the file has the time, the number of the chain's last line, and its MAC.  Who changes the store can put back an earlier
log with its head, but not change the file, if it is on another machine or can only be appended to.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from fhir_server.audit.chain import Head
from fhir_server.clock import instant_text

_log = logging.getLogger("fhir_server")
_SECONDS: Final = 60


class Anchor(NamedTuple):
    """A line of an anchor file."""

    time: str
    seq: int
    mac: str


class AnchorFile:
    """Appends anchors to a file, at most one a minute."""

    def __init__(self, path: Path, now: Callable[[], int]) -> None:
        self._path = path
        self._now = now
        self._next = 0.0
        self._last = ""

    def is_due(self, *, at_once: bool = False) -> bool:
        """Whether to write an anchor now."""
        return at_once or time.monotonic() >= self._next

    def write(self, head: Head) -> None:
        """Append the head, unless it is the last one that this process wrote.  A failure is logged."""
        self._next = time.monotonic() + _SECONDS
        if head.mac == self._last:
            return
        try:
            with self._path.open("ab") as file:
                file.write(anchor_text(head, self._now()).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            _log.error("The anchor of the audit log cannot be written to %s: %s", self._path, error.strerror)
        else:
            self._last = head.mac


def anchor_text(head: Head, at: int) -> str:
    """A head as a line of an anchor file."""
    return f"{instant_text(at)} {head.seq} {head.mac}\n"


def read_anchors(path: Path) -> list[Anchor]:
    """The anchors in a file.  Raises OSError, and ValueError with a message for the operator for a line that is no anchor."""
    anchors = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        parts = line.split()
        if len(parts) != 3 or not parts[1].isdecimal() or len(parts[2]) != 64:
            raise ValueError(f"Line {number} of {path} is not an anchor of the audit log.")
        anchors.append(Anchor(parts[0], int(parts[1]), parts[2]))
    return anchors
