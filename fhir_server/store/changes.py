"""Stored versions in the order of time, for the histories of a type and of the system: what all stores do alike.

A store keeps its versions in lists that are each in order: of one type, one visibility class and, if the caller is limited to
patients, one patient.  So what is hidden by its class or its patient is not read.  :func:`merge` reads of each list as much as it needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from fhir_server.search.filters import IdIs
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.store.conditions import conjuncts, effective_clauses
from fhir_server.store.version_history import VersionHistory, VersionStamp

Place = tuple[int, str, int]
"""The time of a version, its resource's id and its number; among the versions of one type."""

LAST_ID: Final = "\x7f"  # after every id
_LAST_VERSION: Final = 2**62
_LEAST: Final = 8  # versions read of one list at first, if there are many


class ChangeKey(NamedTuple):
    """A stored version.  Keys are ordered by time, then by type, id and number."""

    updated: int
    type: str
    id: str
    version: int


class Change(NamedTuple):
    """A stored version and what is kept of it; ``stamp`` is None if the version is purged."""

    key: ChangeKey
    stamp: VersionStamp | None


@dataclass(frozen=True, slots=True)
class ChangeRange:
    """Versions from ``since`` on and before ``until``, newest first unless ``ascending``, of which those after ``after`` are wanted."""

    since: int = 0
    until: int = 2**63 - 1
    ascending: bool = False
    after: ChangeKey | None = None

    def start(self, type: str) -> Place:
        """The place after which versions of this type are wanted."""
        if self.ascending:
            return max((self.since, "", 0), self._after(type) or (0, "", 0))
        return min((self.until, "", 0), self._after(type) or (self.until, "", 0))

    def _after(self, type: str) -> Place | None:
        if self.after is None:
            return None
        updated, of_type, id, version = self.after
        if type == of_type:
            return updated, id, version
        return (updated, "", 0) if (type > of_type) == self.ascending else (updated, LAST_ID, _LAST_VERSION)

    def starting_after(self, key: ChangeKey) -> ChangeRange:
        """The rest after a version."""
        return ChangeRange(self.since, self.until, self.ascending, key)


def at_or_after(updated: int, type: str, id: str, *, ascending: bool) -> ChangeKey:
    """The key after which all versions of a resource from this instant come, and then all others."""
    return ChangeKey(updated, type, id, 0 if ascending else _LAST_VERSION)


class Source(NamedTuple):
    """Versions that a clause may admit: of a patient (None: of any), of these classes, released by then (None: ever), of these ids."""

    patient: str | None
    classes: frozenset[int]
    released: int | None
    ids: frozenset[str] | None


def sources(visibility: Visibility) -> tuple[Source, ...]:
    """The versions that the visibility may admit, as far as patient, class, release and id decide."""
    return tuple(dict.fromkeys([source for clause in effective_clauses(visibility) for source in _sources(clause, visibility.now)]))


def _sources(clause: VisibilityClause, now: int) -> Iterator[Source]:
    named = [part.ids for part in conjuncts(clause.where) if isinstance(part, IdIs)]
    ids = frozenset.intersection(*named) if named else None
    for patient in (None,) if clause.patients is None else sorted(clause.patients):
        yield Source(patient, clause.classes, now if clause.released_only else None, ids)


List = TypeVar("List")


class Part(NamedTuple, Generic[List]):
    """``limit`` versions of a list after a place."""

    list: List
    start: Place
    limit: int


async def merge(
    lists: Sequence[tuple[str, List]],
    range: ChangeRange,
    limit: int,
    read: Callable[[list[Part[List]]], Awaitable[list[list[Place]]]],
) -> list[ChangeKey]:
    """The first ``limit`` versions of these lists, each of one type, in order and without repetitions."""
    count = limit if len(lists) <= _LEAST else min(limit, _LEAST)
    wanted = {number: Part(one, range.start(type), count) for number, (type, one) in enumerate(lists)}
    ends: dict[int, ChangeKey] = {}  # of lists of which there is more, the last version that was read
    found: set[ChangeKey] = set()
    while wanted:
        for (number, part), places in zip(wanted.items(), await read([*wanted.values()]), strict=True):
            keys = [ChangeKey(updated, lists[number][0], id, version) for updated, id, version in places]
            found.update(keys)
            ends.pop(number, None)
            if len(keys) == part.limit:
                ends[number] = keys[-1]
        ordered = sorted(found, reverse=not range.ascending)[:limit]
        last = ordered[-1] if len(ordered) == limit else None
        # A list that was read only to a version before the last one may have more that come before it.
        short = [number for number, end in ends.items() if last is None or ((end < last) if range.ascending else (end > last))]
        count *= 2
        wanted = {number: Part(lists[number][1], _place(ends[number]), count) for number in short}
    return sorted(found, reverse=not range.ascending)[:limit]


def _place(key: ChangeKey) -> Place:
    return key.updated, key.id, key.version


def purged_beginnings(newest: VersionHistory | None, stored: Collection[int]) -> dict[int, int]:
    """The purged versions with which somebody's newest number began, with their times; ``newest``: of the newest version."""
    earlier = newest.earlier if newest is not None and newest.digest.digests else None
    return {change.version: change.updated for change in earlier.changes if change.version not in stored} if earlier else {}
