"""Which earlier versions of a resource a purge removes.

What a caller sees of a resource's history ends at an instant, whatever is still stored (:meth:`Snapshot.history_horizon`).  So a version
may stay because something else rests on it, without anybody noticing:

- the newest version; if it is a deletion, the version that it ended: it lends labels, and its labels outlive the deletion;
- the newest version with each class, release and patients: labels that are given later are found by it;
- a version that refers to what the version after it did not: if that is labeled later, the resource lends that label.

A resource whose patients have changed keeps all versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

When = TypeVar("When", int, str)


class StoredVersion(NamedTuple, Generic[When]):
    """A version.  ``loses``: it has references that the version after it has not; ``stored``: see :mod:`~fhir_server.store.row_order`."""

    version: int
    updated: int
    class_id: int
    release_at: int
    patients: tuple[str, ...]
    is_deletion: bool
    loses: bool
    stored: When


class Purge(NamedTuple, Generic[When]):
    """``numbers``: the versions to remove; ``stored``: when versions that stay count as stored instead, by number.

    A row's place is that of its first version with the same labels, so the first that stays takes that place over.
    """

    numbers: list[int]
    stored: dict[int, When]


def choose(versions: Sequence[StoredVersion[When]], before: int) -> Purge[When]:
    """What to remove of the versions of one resource, oldest first, that are from before an instant."""
    if len({version.patients for version in versions}) > 1:
        return Purge([], {})
    kept: set[int] = set()
    views: set[tuple[int, int]] = set()
    needs_ended = False
    for version in reversed(versions):
        view = version.class_id, version.release_at
        if needs_ended or not kept or view not in views or version.updated >= before or version.loses:
            kept.add(version.version)
            needs_ended = version.is_deletion
        views.add(view)
    numbers, stored = [], dict[int, When]()
    first: dict[tuple[int, int], When] = {}
    for version in versions:
        view = version.class_id, version.release_at
        if version.version not in kept:
            numbers.append(version.version)
            first[view] = min(first.get(view, version.stored), version.stored)
        elif view in first and (place := first.pop(view)) < version.stored:
            stored[version.version] = place
    return Purge(numbers, stored)
