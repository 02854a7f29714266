"""Adds a version to what is kept of the versions before it; pure functions of the records of :mod:`~fhir_server.store.version_history`.

Whether a version is another one for a caller depends on her.  Which *kinds* of steps from one version to the next there are does
not: from which (class, release) to which, past which others, and under which conditions the change is seen.  So the summary of
versions counts the kinds of steps, and who counts versions adds up the kinds that she sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fhir_server.store.version_history import (
    Condition,
    LaterOwners,
    LatestVersion,
    VersionChanges,
    VersionDigest,
    VersionHistory,
    VersionSummary,
)

_View = tuple[int, int]  # class and release of versions
NO_VERSION = -1
"""The view before the first version, in :attr:`VersionChanges.before`."""


def following(history: VersionHistory | None, digest: VersionDigest) -> VersionHistory:
    """The history of the version with this digest, which follows the one with ``history``."""
    if history is None:
        return VersionHistory(digest)
    return VersionHistory(digest, _extended(history.earlier, history.digest), tuple(_later_owners(history, digest)))


def _later_owners(history: VersionHistory, new: VersionDigest) -> Iterator[LaterOwners]:
    """See :attr:`VersionHistory.later_owners`."""
    was, now = history.digest.patients, new.patients
    if was is None or now is None:
        return
    for one in history.later_owners:
        if kept := tuple([patient for patient in one.patients if patient in now]):
            yield LaterOwners(kept, one.first, _extended(one.earlier, history.digest))
    if joined := tuple([patient for patient in now if patient not in was]):
        yield LaterOwners(joined, new.version, None)


def _extended(earlier: VersionSummary | None, new: VersionDigest) -> VersionSummary:
    """The summary with another version."""
    latest = latest_version(earlier, new)
    if earlier is None:
        first = (VersionChanges(NO_VERSION, 0, (), (), 1, new.version, new.updated),)
        return VersionSummary(((new.class_id, new.release_at),), ((0, latest),), first, (), *_lent(1, (), new))
    view = (new.class_id, new.release_at)
    views = earlier.views if view in earlier.views else (*earlier.views, view)
    number = views.index(view)
    changes = {(change.before, change.after, change.hidden, change.conditions): change for change in earlier.changes}
    for key in _steps(earlier, new, views, number):
        known = changes.get(key)
        changes[key] = VersionChanges(*key, known.count + 1 if known else 1, new.version, new.updated)
    return VersionSummary(
        views,
        ((number, latest), *[one for one in earlier.latest if one[0] != number]),
        tuple(changes.values()),
        (),
        *_lent(earlier.lends, earlier.lent, new),
    )


def _steps(
    earlier: VersionSummary, new: VersionDigest, views: tuple[_View, ...], number: int
) -> Iterator[tuple[int, int, tuple[int, ...], tuple[Condition, ...]]]:
    """The kinds of steps to a new version: from each version that can be the one before it for a caller, if anything changed."""
    hidden: list[int] = []
    for before, latest in earlier.latest:
        if not any(_implies(views[before], views[other]) for other in hidden):
            conditions = _changed(latest.digest, new)
            if conditions is not None:
                yield before, number, tuple(sorted(hidden)), conditions
        if _implies(views[number], views[before]):
            return
        hidden.append(before)
    yield NO_VERSION, number, tuple(sorted(hidden)), ()


def _implies(view: _View, other: _View) -> bool:
    """Whether everybody who sees versions of ``view`` sees those of ``other``."""
    return view[0] == other[0] and view[1] >= other[1]


def _changed(old: VersionDigest, new: VersionDigest) -> tuple[Condition, ...] | None:
    """Under which conditions a caller who sees both versions sees a difference; none: always.  None if there is no difference."""
    if not new.digests or not old.digests or old.class_id != new.class_id or shows_early(old, new):
        return ()
    was, now = _parts(old), _parts(new)
    differing = {condition for condition in was.keys() | now.keys() if was.get(condition) != now.get(condition)}
    if ((new.class_id,), ()) in differing:
        return ()
    return tuple(sorted(_weakest(differing))) or None


def shows_early(old: VersionDigest, new: VersionDigest) -> bool:
    """Whether a version is seen while the version before it is not released yet.  It is a change then, whatever differs.

    Else it would have the time of the version before it for those alone who see that one, and be found by it by all.
    """
    return old.release_at > max(new.release_at, new.updated)


def _parts(digest: VersionDigest) -> dict[Condition, str]:
    plain: dict[Condition, str] = {((class_id,), ()): text for class_id, text in digest.digests}
    return plain | {(classes, targets): text for text, classes, targets in digest.guarded_parts}


def _weakest(conditions: Iterable[Condition]) -> list[Condition]:
    """The conditions without those that imply another one."""
    kept: list[Condition] = []
    for classes, targets in sorted(conditions, key=lambda condition: len(condition[0]) + len(condition[1])):
        if not any(set(classes).issuperset(other[0]) and set(targets).issuperset(other[1]) for other in kept):
            kept.append((classes, targets))
    return kept


def latest_version(earlier: VersionSummary | None, new: VersionDigest) -> LatestVersion:
    """What is kept of a version while it is the newest with its class and release.

    Its times are those of callers who see no version that was not released yet.  Others find it by an earlier time than they read.
    """
    passed: dict[int, int] = {}
    same: LatestVersion | None = None
    for _, latest in earlier.latest if earlier else ():
        if shows_early(latest.digest, new):
            continue
        if latest.digest.class_id == new.class_id:
            same = latest
            break
        passed[latest.digest.class_id] = new.updated
    was = dict(same.digest.digests) if same else {}
    since = _since(new, was, dict(same.since) if same else {})
    if same and new.digests and was.get(new.class_id) == new.digests[0][1]:
        for class_id, time in same.passed:
            passed[class_id] = max(passed.get(class_id, 0), time)
    own = since[0][1] if since else 0
    guarded = _guarded(new, same) if same and new.digests else {}
    later = tuple(sorted((class_id, time) for class_id, time in passed.items() if time > own))
    return LatestVersion(new, 0, since, later, tuple(sorted((condition, time) for condition, time in guarded.items() if time > own)))


def _guarded(new: VersionDigest, same: LatestVersion) -> dict[Condition, int]:
    """See :attr:`LatestVersion.guarded`; ``same``: the version before it of the same class."""
    changed = set(same.digest.guarded_parts) ^ set(new.guarded_parts)
    return dict(same.guarded) | {(classes, targets): new.updated for _, classes, targets in changed}


def _since(new: VersionDigest, was: dict[int, str], began: dict[int, int]) -> tuple[tuple[int, int], ...]:
    """See :attr:`LatestVersion.since`; ``was`` and ``began``: the parts of the version before it of the same class, and since when."""
    found = {part: began[part] if was.get(part) == text else new.updated for part, text in new.digests}
    own = found.get(new.class_id, new.updated)
    gone = {part: new.updated if part in was else time for part, time in began.items() if part not in found}
    return (*found.items(), *[(part, time) for part, time in sorted(gone.items()) if time > own])


def _lent(lends: int, lent: tuple[tuple[int, int, int], ...], new: VersionDigest) -> tuple[int, tuple[tuple[int, int, int], ...]]:
    """From which version on the row lends, and what differs in it: for each class, the latest release and the latest inherited one."""
    if new.declassifies:
        lends, lent = new.version, ()
    own = (new.class_id, new.release_at, new.own_release_at)
    versions = [*(one for one in lent if one[0] == new.class_id), own]
    latest = max(release for _, release, _ in versions)
    inherited = max((release for _, release, stated in versions if release > stated), default=0)
    kept = [one for one in lent if one[0] != new.class_id]
    if inherited:
        kept.append((new.class_id, inherited, 0))
    if latest > inherited or not latest:
        kept.append((new.class_id, latest, latest))
    return lends, tuple(kept)
