"""What a View gives out: versions of resources as one caller sees them, and pages of them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from fhir_server.access.visible_changes import EntryKey
from fhir_server.search.rows import Position


class VisibleVersion(msgspec.Struct, frozen=True):
    """A version of a resource as one caller sees it.

    ``updated``: microseconds; ``body``: JSON text, empty for a deletion; ``is_complete``: nothing can be hidden from this caller.
    """

    type: str
    id: str
    version: int
    updated: int
    body: bytes
    interaction: str = "create"
    is_complete: bool = False


class VisiblePage(NamedTuple):
    """Rows in order, and where the next page starts (None: these were the last).

    ``total``: the number of rows that match in all, if the store knows it without another query, else None.
    """

    versions: list[VisibleVersion]
    next: Position | None
    total: int | None = None


class VisibleHistoryPage(NamedTuple):
    """Versions, newest first, and the number before which the next page starts (None: these were the last).

    ``total``: how many there are in all (None: it is not known without reading them).
    """

    versions: list[VisibleVersion]
    next: int | None
    total: int | None


class VisibleChangesPage(NamedTuple):
    """Versions of several resources, and the entry after which the next page starts (None: these were the last).

    ``total``: how many there are in all (None: it is not known without reading them).
    """

    versions: list[VisibleVersion]
    next: EntryKey | None
    total: int | None
