"""Append-only logs: their entries, and how the lines of a log are linked when they are stored.

A store appends entries in a transaction of its own or with other writes.  In that transaction it passes the log's head and the
new entries to a function of the log's owner, which returns the lines to store and the new head.  So the lines of several
processes form one chain.  The head is a key-value record of kind :data:`HEAD`, with the log's name as its key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

HEAD: Final = "log-head"
AUDIT_LOG: Final = "audit"


class LogEntry(NamedTuple):
    """What a line is made from.

    ``keys``     texts by which the line can be found (:meth:`Snapshot.log_lines_unfiltered`)
    ``pending``  the id of the record that holds the entry until its line is stored (:meth:`Transaction.log_at_commit`); "": there is none
    """

    text: bytes
    keys: tuple[str, ...] = ()
    pending: str = ""


PendingRecord = Callable[[], tuple[str, bytes]]
"""Makes a pending record: a new id of hexadecimal digits, and the content, from which the log's owner can make the entry again."""


class PurgedLine(NamedTuple):
    """A line to remove: its number, and the keys of its entry."""

    number: int
    keys: tuple[str, ...] = ()


NOT_FIRST: Final = "The first lines of the log are others now: another command purges it. Try again later."

LinkEntries = Callable[[bytes | None, Sequence[LogEntry]], tuple[Sequence[bytes], bytes | None]]
"""From the head of a log (None: it has none) and new entries to one line for each entry, and the new head.

It may be called on any thread, and more than once for the same entries."""


def unlinked(head: bytes | None, entries: Sequence[LogEntry]) -> tuple[Sequence[bytes], bytes | None]:
    """Each entry's text is its line; the log has no head."""
    return [entry.text for entry in entries], head
