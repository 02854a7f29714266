"""What a version of a resource knows of the versions before it, from which version numbers follow without reading those.

A caller counts only the versions that she may see, and only if something changed that she may see.  So each version keeps its
own digest and, of all versions before it, a summary that any caller's number and time can be computed from
(:mod:`fhir_server.access.version_numbers`).  The summary does not grow with the number of versions.  It grows with the number
of different (class, release) pairs that the versions had, and of different sets of conditions under which a change is seen.

The store keeps these records with each version and does not interpret them.
"""

from __future__ import annotations

from typing import Final

import msgspec

HORIZON: Final = "history-horizon"
"""The kind of the key-value record, with the key "", that holds :meth:`Snapshot.history_horizon` as decimal digits."""

Condition = tuple[tuple[int, ...], tuple[str, ...]]
"""The classes to which a caller must be admitted, and the rows (``Type/id``) that she must see, to see a part of a resource."""


class VersionDigest(msgspec.Struct, frozen=True, array_like=True):
    """What version numbers are computed from, for each caller, without reading bodies.

    ``digests`` holds (class id, digest) of each part of the body: the row's own class, and each labeled element's.
    ``guarded_parts`` has the same for the parts that are guarded by other rows: (digest, classes, targets), all of which a caller
    must see to see the part.  ``declassifies``: with this version, what earlier ones have lent to other rows is released.
    ``own_release_at``: the release date that the version itself states, if any.  ``patients``: whose version it is; None: not known.
    """

    version: int
    updated: int
    class_id: int
    release_at: int
    digests: tuple[tuple[int, str], ...]
    guarded_parts: tuple[tuple[str, tuple[int, ...], tuple[str, ...]], ...] = ()
    declassifies: bool = False
    own_release_at: int = 0
    patients: tuple[str, ...] | None = None


class LatestVersion(msgspec.Struct, frozen=True, array_like=True):
    """The newest of the versions with one class and release.

    ``former``       0; earlier releases of the server kept a time here
    ``since``        for each part with a class of its own: (class, time since which versions of this class have it so); also for
                     parts that these versions had, unless what has no class of its own changed since they are gone
    ``passed``       for each other class of versions since then: (class, time at which who sees that class saw a change)
    ``guarded``      when parts that other rows guard changed in versions of this class, by their condition, unless what has no class
                     of its own changed since then
    """

    digest: VersionDigest
    former: int
    since: tuple[tuple[int, int], ...]
    passed: tuple[tuple[int, int], ...]
    guarded: tuple[tuple[Condition, int], ...] = ()


class VersionChanges(msgspec.Struct, frozen=True, array_like=True):
    """Changes from a version to the next visible one that the same callers see; views are (class, release) by number.

    ``before``      the view of the earlier version; -1 if there is no earlier visible version
    ``after``       the view of the later version
    ``hidden``      the views of the versions between them, which a caller who counts these changes does not see
    ``conditions``  a caller sees a change if one of these is met; without any: always
    ``count``       how many there are
    ``version``     the newest of the later versions, and ``updated`` its time
    """

    before: int
    after: int
    hidden: tuple[int, ...]
    conditions: tuple[Condition, ...]
    count: int
    version: int
    updated: int


class VersionSummary(msgspec.Struct, frozen=True, array_like=True):
    """All versions up to one of them.

    ``views``    the (class, release) pairs of versions; other members refer to them by their index
    ``latest``   for each view its newest version, the newest of all first
    ``changes``  what to count
    ``former``   (); earlier releases of the server kept times here
    ``lends``    the version from which on the row lends labels to others
    ``lent``     the (class, release, own release) of versions from then on, as far as they differ in what is lent
    """

    views: tuple[tuple[int, int], ...]
    latest: tuple[tuple[int, LatestVersion], ...]
    changes: tuple[VersionChanges, ...]
    former: tuple[tuple[Condition, int], ...] = ()
    lends: int = 1
    lent: tuple[tuple[int, int, int], ...] = ()


class LaterOwners(msgspec.Struct, frozen=True, array_like=True):
    """Patients of a version to whom its resource does not belong since its first version.

    ``first``    the version from which on it belongs to them
    ``earlier``  all versions from that one up to the one before; None if there are none
    """

    patients: tuple[str, ...]
    first: int
    earlier: VersionSummary | None


class VersionHistory(msgspec.Struct, frozen=True, array_like=True):
    """The digest of a version, and the summary of those before it; None if it is the first.

    ``later_owners``: who sees rows of these patients alone does not see all versions, and counts those that are theirs.
    """

    digest: VersionDigest
    earlier: VersionSummary | None = None
    later_owners: tuple[LaterOwners, ...] = ()

    def of_patients(self, patients: frozenset[str] | None) -> VersionHistory:
        """What callers know of it who see rows of these patients alone (None: of any)."""
        found = self._joined_by(patients)
        return VersionHistory(self.digest, found.earlier) if found else self

    def first_of(self, patients: frozenset[str] | None) -> int:
        """The version from which on the resource belongs to these patients."""
        found = self._joined_by(patients)
        return found.first if found else 1

    def _joined_by(self, patients: frozenset[str] | None) -> LaterOwners | None:
        """The first of these patients to whom it belongs, unless it belongs to one of them from its first version on."""
        if patients is None or not self.later_owners:
            return None
        found = [one for one in self.later_owners if not patients.isdisjoint(one.patients)]
        later = {patient for one in found for patient in one.patients}
        since_first = patients.intersection(self.digest.patients or ()) - later
        return None if since_first else min(found, key=lambda one: one.first, default=None)


class VersionStamp(msgspec.Struct, frozen=True):
    """A stored version without its body.  ``encoded``: its VersionHistory; None if it has none, as most first versions."""

    version: int
    updated: int
    class_id: int
    release_at: int
    encoded: bytes | None

    def history(self) -> VersionHistory | None:
        """The version's history, decoded."""
        return decode_history(self.encoded) if self.encoded is not None else None


encode_history = msgspec.msgpack.Encoder().encode
decode_history = msgspec.msgpack.Decoder(VersionHistory).decode
