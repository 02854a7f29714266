"""The types of rows, versions and pages that every store reads and writes.

Times are microseconds since 1970 UTC.  ``clock.MAX_INSTANT`` as a release instant means "not before somebody releases it"; as
an expiry instant, "does not expire".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from fhir_server.jsontext import Path
from fhir_server.search.rows import Entry, Position


class LabeledElement(msgspec.Struct, frozen=True, array_like=True):
    """A part of a resource with a visibility class of its own.

    A caller can read it, and search by it, only if that class is admitted.
    """

    path: Path
    class_id: int


class GuardedReference(msgspec.Struct, frozen=True, array_like=True):
    """A literal reference at ``path`` that is removed from an answer unless its ``target`` is visible to the caller."""

    path: Path
    target: str


class VersionDigest(msgspec.Struct, frozen=True, array_like=True):
    """What version numbers are computed from, for each caller, without reading bodies.

    ``digests`` holds (class id, digest) of each part of the body: the row's own class, and each labeled element's.
    ``guarded_references`` holds (target, member that contains the reference), in order.  ``declassifies``: with this version, what
    earlier ones have lent to other rows is released.  ``own_release_at``: the release date that the version itself states, if any.
    """

    version: int
    updated: int
    class_id: int
    release_at: int
    digests: tuple[tuple[int, str], ...]
    guarded_references: tuple[tuple[str, str], ...] = ()
    declassifies: bool = False
    own_release_at: int = 0


class Row(msgspec.Struct, frozen=True):
    """One stored version of a resource: the current one, or an earlier one from :meth:`Snapshot.versions`.

    ``body`` is the complete JSON text, with everything that some callers may not see.  ``updated`` and ``release_at``
    are microseconds since 1970 UTC.  ``version_digests`` covers all versions up to this one, oldest first; empty means
    that this is the only version.
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
    version_digests: tuple[VersionDigest, ...] = ()
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


@dataclass(frozen=True, slots=True)
class PermissionEpoch:
    """Counters in the store.  Cached permissions are invalid once one of them has changed.  Never part of an answer."""

    security: int  # accounts, clients, revoked tokens
    patient: int  # this patient's proxy grants, birth date, death, links
    classes: int  # how many visibility classes there are
