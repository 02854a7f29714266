"""Counts a resource's versions as each caller counts them, from what each version keeps of those before it.

A caller counts a version if she sees its class and release, and if something that she sees differs from the version before it
that she sees.  Whether it differs depends on her; but which *kinds* of steps from one version to the next there are does not.
So each version keeps a summary of the kinds of steps before it (:mod:`fhir_server.store.version_summary`), and :func:`count` adds up
the kinds that a caller sees.  The result is that of going through all versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from fhir_server.store import VersionDigest, VersionHistory
from fhir_server.store.version_history import Condition, VersionSummary
from fhir_server.store.version_summary import NO_VERSION, latest_version, shows_early


class Sight(NamedTuple):
    """What a caller sees: the admitted classes, the rows (of those that guard parts), until when released (None: all), and of whom.

    ``patients``: whose versions the caller sees; None: any patient's.
    """

    classes: frozenset[int]
    shown: frozenset[str]
    released: int | None
    patients: frozenset[str] | None = None

    def sees(self, class_id: int, release_at: int) -> bool:
        """Whether versions of this class and release are visible."""
        return class_id in self.classes and (self.released is None or release_at <= self.released)

    def meets(self, condition: Condition) -> bool:
        """Whether parts under this condition are visible."""
        return self.classes.issuperset(condition[0]) and self.shown.issuperset(condition[1])


class Counted(NamedTuple):
    """A version as a caller counts it: its number, and the stored version and time with which that number began."""

    number: int
    version: int
    updated: int


_NONE = Counted(0, 0, 0)
_astuple = msgspec.structs.astuple


def count(history: VersionHistory, sight: Sight, *, is_visible: bool = False) -> Counted:
    """The caller's newest version among this one and those before it.

    ``is_visible``: the caller passed the check of visibility for this version, so it counts.
    """
    history = history.of_patients(sight.patients)
    before = count_earlier(history, sight)
    digest = history.digest
    if not is_visible and not sight.sees(digest.class_id, digest.release_at):
        return before
    if before.number == 0 or not digest.digests or _differs(digest, _newest_visible(history.earlier, sight), sight):
        return Counted(before.number + 1, digest.version, digest.updated)
    return before


def _differs(digest: VersionDigest, last: VersionDigest | None, sight: Sight) -> bool:
    """Whether the caller sees a difference between a version and the newest visible one before it."""
    own = digest.digests[0]
    if last is not None and shows_early(last, digest):
        return True
    if last is not None and last.digests and last.digests[0] != own and own[0] in sight.classes:
        return True  # as mostly: something outside of the parts with a class of their own changed
    return _visible_parts(digest, sight) != _visible_parts(last, sight)


def count_earlier(history: VersionHistory, sight: Sight) -> Counted:
    """The caller's newest version among those before this one."""
    summary = history.of_patients(sight.patients).earlier
    if summary is None:
        return _NONE
    seen = {number for number, view in enumerate(summary.views) if sight.sees(*view)}
    if not seen:
        return _NONE
    seen.add(NO_VERSION)
    found, version, updated = 0, 0, 0
    for before, after, hidden, conditions, times, newest, time in map(_astuple, summary.changes):
        if after in seen and before in seen and (not hidden or seen.isdisjoint(hidden)):
            if conditions and not any(map(sight.meets, conditions)):
                continue
            found += times
            if newest > version:
                version, updated = newest, time
    return Counted(found, version, updated)


def guards(history: VersionHistory) -> Iterator[str]:
    """The rows on which it depends how a caller counts these versions; for :attr:`Sight.shown`."""
    earlier = history.earlier
    for digest in (history.digest, *[latest.digest for _, latest in (earlier.latest if earlier else ())]):
        for _, _, targets in digest.guarded_parts:
            yield from targets
    for change in earlier.changes if earlier else ():
        for _, targets in change.conditions:
            yield from targets


def last_changes(history: VersionHistory) -> set[tuple[int, int]]:
    """(time, class): for each caller who sees this version, the greatest time of an admitted class is the time that she sees.

    Each class of earlier versions that differ has its own: who sees that version sees the change after it.  Changes of guarded
    parts are the business of :func:`guarded_changes`.
    """
    latest = latest_version(history.earlier, history.digest)
    return {(time, class_id) for class_id, time in (*latest.since, *latest.passed)}


def guarded_changes(history: VersionHistory) -> dict[Condition, int]:
    """By condition: the latest instant at which a part changed that is visible under it."""
    return dict(latest_version(history.earlier, history.digest).guarded)


def _newest_visible(summary: VersionSummary | None, sight: Sight) -> VersionDigest | None:
    for _, latest in summary.latest if summary else ():
        if sight.sees(latest.digest.class_id, latest.digest.release_at):
            return latest.digest
    return None


def _visible_parts(digest: VersionDigest | None, sight: Sight) -> tuple[object, ...]:
    if digest is None:
        return ()
    guarded = [part for part in digest.guarded_parts if sight.meets(part[1:])]
    return (*(pair for pair in digest.digests if pair[0] in sight.classes), *guarded)


def lends_since(history: VersionHistory) -> int:
    """The number of the version from which on a row lends: the newest one that declassifies, else its first."""
    if history.digest.declassifies:
        return history.digest.version
    return history.earlier.lends if history.earlier else 1


def lending(history: VersionHistory) -> tuple[tuple[int, int, int], ...]:
    """(class, release, own release) of the versions that lend, as far as they differ in what they lend; the newest one last."""
    digest = history.digest
    own = (digest.class_id, digest.release_at, digest.own_release_at)
    return (*(history.earlier.lent if history.earlier and not digest.declassifies else ()), own)
