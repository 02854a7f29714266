"""Gives new labels to what a version keeps of the versions before it, when these are no longer stored.

Whoever labels a resource again makes the summary of earlier versions from the versions themselves.  Of purged versions there is the
summary alone.  Their classes become those of the stored versions that had the same ones.  Whether the first stored version differs
from a purged one is taken over for each part; where parts are divided otherwise now, no difference is claimed, so that no caller sees
a change that was hidden from her.  What purged versions have lent stays lent, besides what they lend now.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fhir_server.store.version_history import (
    Condition,
    LaterOwners,
    LatestVersion,
    VersionChanges,
    VersionDigest,
    VersionHistory,
    VersionSummary,
)

View = tuple[int, int]  # class and release


def rebased_history(was: VersionHistory, new: VersionDigest, views: Mapping[View, View]) -> VersionHistory:
    """The history of a version before which all are purged, for its new digest; ``views``: as for :func:`rebased`."""
    later: list[LaterOwners] = []
    for one in was.later_owners:
        if kept := tuple([patient for patient in one.patients if patient in (new.patients or ())]):
            later.append(LaterOwners(kept, one.first, rebased(one.earlier, was.digest, new, views) if one.earlier else None))
    return VersionHistory(new, rebased(was.earlier, was.digest, new, views) if was.earlier else None, tuple(later))


def rebased(earlier: VersionSummary, old: VersionDigest, new: VersionDigest, views: Mapping[View, View]) -> VersionSummary:
    """The summary of purged versions, which the version with digest ``old`` has, for its new digest.

    ``views``: the class and release of stored versions before and now.
    """
    now = {**views, (old.class_id, old.release_at): (new.class_id, new.release_at)}
    if old == new and all(before == after for before, after in now.items()):
        return earlier
    return _Rebase(old, new, now).summary(earlier)


class _Rebase:
    def __init__(self, old: VersionDigest, new: VersionDigest, views: Mapping[View, View]) -> None:
        self._old, self._new, self._views = old, new, views
        self._classes = {before[0]: after[0] for before, after in views.items()}

    def summary(self, earlier: VersionSummary) -> VersionSummary:
        lent = [(*self._view((class_id, release)), own) for class_id, release, own in earlier.lent]
        return VersionSummary(
            tuple(map(self._view, earlier.views)),
            tuple([(number, self._latest(latest)) for number, latest in earlier.latest]),
            tuple(map(self._changes, earlier.changes)),
            (),
            earlier.lends,
            tuple(dict.fromkeys([*earlier.lent, *lent])),
        )

    def _class(self, class_id: int) -> int:
        return self._classes.get(class_id, class_id)

    def _view(self, view: View) -> View:
        return self._views.get(view, (self._class(view[0]), view[1]))

    def _condition(self, condition: Condition) -> Condition:
        return tuple(sorted({self._class(class_id) for class_id in condition[0]})), condition[1]

    def _changes(self, changes: VersionChanges) -> VersionChanges:
        return msgspec.structs.replace(changes, conditions=tuple(sorted({*map(self._condition, changes.conditions)})))

    def _latest(self, latest: LatestVersion) -> LatestVersion:
        digest = latest.digest
        own, release = self._view((digest.class_id, digest.release_at))
        is_comparable = bool(digest.class_id == self._old.class_id and digest.digests and self._old.digests and self._new.digests)
        found = self._as_divided_now(digest) if is_comparable else {self._condition(key): text for key, text in _parts(digest).items()}
        plain = {classes[0]: text for (classes, targets), text in found.items() if not targets and len(classes) == 1}
        digests = [(own, plain.pop(own))] if own in plain else []
        digests += sorted(plain.items())
        guarded = [(text, *condition) for condition, text in sorted(found.items()) if condition[1] or len(condition[0]) != 1]
        since = {self._class(class_id): time for class_id, time in reversed(latest.since)}
        began = since.get(own, digest.updated)
        passed: dict[int, int] = {}
        for class_id, time in latest.passed:
            passed[self._class(class_id)] = max(time, passed.get(self._class(class_id), 0))
        passed.pop(own, None)
        changed: dict[Condition, int] = {}
        for condition, time in latest.guarded:
            condition = self._condition(condition)
            changed[condition] = max(time, changed.get(condition, 0))
        relabeled = msgspec.structs.replace(
            digest, class_id=own, release_at=release, digests=tuple(digests), guarded_parts=tuple(guarded)
        )  # fmt: skip
        times = {class_id: since.get(class_id, began) for class_id, _ in digests}
        gone = {class_id: time for class_id, time in sorted(since.items()) if class_id not in times and time > began}
        return LatestVersion(relabeled, 0, (*times.items(), *gone.items()), tuple(sorted(passed.items())), tuple(sorted(changed.items())))

    def _as_divided_now(self, digest: VersionDigest) -> dict[Condition, str]:
        """The parts of a purged version, as those of the new digest; equal to those where the old digest did not differ."""
        was, then, now = _parts(digest), _parts(self._old), _parts(self._new)
        former = {self._condition(condition): condition for condition in (*was, *then)}
        former[(self._new.class_id,), ()] = (self._old.class_id,), ()
        found: dict[Condition, str] = {}
        for condition, text in now.items():
            key = former.get(condition)
            if key is None or was.get(key) == then.get(key):
                found[condition] = text
            elif key in was:
                found[condition] = was[key]
        gone = {self._condition(key): text for key, text in was.items() if key not in then}
        return {**{condition: text for condition, text in gone.items() if condition not in now}, **found}


def _parts(digest: VersionDigest) -> dict[Condition, str]:
    plain: dict[Condition, str] = {((class_id,), ()): text for class_id, text in digest.digests}
    return plain | {(classes, targets): text for text, classes, targets in digest.guarded_parts}
