"""The types of rows, versions and pages that every store reads and writes.

Times are microseconds since 1970 UTC.  ``clock.MAX_INSTANT`` as a release instant means "not before somebody releases it"; as
an expiry instant, "does not expire".
"""

from __future__ import annotations

from typing import Literal

import msgspec

from fhir_server.jsontext import Path
from fhir_server.search.rows import Entry, Position
from fhir_server.store.version_history import VersionHistory


class LabeledElement(msgspec.Struct, frozen=True, array_like=True):
    """A part of a resource with a visibility class of its own.

    A caller can read it, and search by it, only if that class is admitted.
    """

    path: Path
    class_id: int


class GuardedReference(msgspec.Struct, frozen=True, array_like=True):
    """What is removed from an answer unless the row ``target`` is visible to the caller: a reference to it, or what discloses it.

    The empty path is the row itself: it is visible only to who sees ``target``, which its class and its index entries ensure.
    """

    path: Path
    target: str


class Row(msgspec.Struct, frozen=True):
    """One stored version of a resource: the current one, or an earlier one from :meth:`Snapshot.versions`.

    ``body`` is the complete JSON text, with everything that some callers may not see.  ``updated`` and ``release_at``
    are microseconds since 1970 UTC.  ``history`` says what the version numbers of this version follow from; a first
    version that is not held needs none.
    """

    type: str
    id: str
    version: int
    updated: int
    patients: tuple[str, ...]
    class_id: int
    release_at: int
    body: bytes
    labeled_elements: tuple[LabeledElement, ...] = ()
    guarded_references: tuple[GuardedReference, ...] = ()
    history: VersionHistory | None = None
    interaction: Literal["create", "update", "delete"] = "create"


class IndexedRow(msgspec.Struct, frozen=True):
    """A version to write: a Row and its index entries."""

    row: Row
    entries: tuple[Entry, ...] = ()


class Page(msgspec.Struct, frozen=True):
    """Rows in order, and the position that the next page starts after (None: there are no more rows).

    ``total`` is what ``count`` returns for the same condition if the store found it out on the way, else None.
    """

    rows: tuple[Row, ...]
    next: Position | None
    total: int | None = None


class PermissionEpoch(msgspec.Struct, frozen=True):
    """Counters in the store.  Cached permissions are invalid once one of them has changed.  Never part of an answer."""

    security: int  # accounts, clients, revoked tokens
    patient: int  # this patient's proxy grants, birth date, death, links
    classes: int  # how many visibility classes there are
